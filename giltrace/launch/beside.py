"""Something else to do while a target runs."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator

#: Within this time (seconds) who waits for the target sees what happens to it.
_SWITCH_SECONDS = 0.0005


@contextlib.contextmanager
def beside(work: Callable[[threading.Event], object], name: str) -> Iterator[None]:
    """Do the `work` in a thread of that `name` while the block runs: the event is set once that is over."""
    over = threading.Event()
    thread = threading.Thread(target=work, args=(over,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def taken_beside(steps: Iterable[object]) -> Iterator[None]:
    """Take the `steps` in a thread while the block runs; none is begun once that is over."""

    def take(over: threading.Event) -> None:
        # What fails here fails again where it is needed, and is told there.
        with contextlib.suppress(Exception):
            for _ in steps:
                if over.is_set():
                    return

    usual = sys.getswitchinterval()
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        with beside(take, "giltrace-beside"):
            yield
    finally:
        sys.setswitchinterval(usual)

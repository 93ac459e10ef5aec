"""What takes long says on the terminal what it is doing; nobody else sees anything of it."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Iterator

from giltrace.text import cut, visible

#: Nothing is said before; then this often.
_SILENT_SECONDS = 2.0
_EVERY_SECONDS = 0.5


class _Line:
    """The line on stderr, while anything is done: a thread of its own writes it, again and again."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._done = threading.Event()
        self._shown = False
        self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        wait = _SILENT_SECONDS
        with contextlib.suppress(OSError):
            while not self._done.wait(wait):
                self._write()
                wait = _EVERY_SECONDS

    def _write(self) -> None:
        seconds = f"  {time.monotonic() - self._begun:.0f} s"
        room = shutil.get_terminal_size().columns - len(seconds) - 1
        what = f"giltrace: {visible(_doing[-1])}" if _doing else ""
        self._shown = True
        print(f"\r{cut(what, room)}{seconds}\x1b[K", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Take the line away."""
        self._done.set()
        self._thread.join()
        if self._shown:
            with contextlib.suppress(OSError):
                end_of_line()


#: What is being done, the innermost last.
_doing: list[str] = []


@contextlib.contextmanager
def working(what: str) -> Iterator[None]:
    """Show, once the outermost of such blocks has lasted 2 s, `what` is done in the innermost, and for how long.

    Only where stderr is a terminal. What is printed within goes by `say`.
    """
    line = _Line() if not _doing and sys.stderr.isatty() else None
    _doing.append(what)
    try:
        yield
    finally:
        _doing.pop()
        if line is not None:
            line.end()


#: Whether such a line stands there.
_getting_on = threading.Event()


def getting_on(text: str) -> None:
    """Say on one line of a terminal, written again and again, how a recording is getting on."""
    if sys.stderr.isatty():
        _getting_on.set()
        print(f"\r{text}  (Ctrl-C ends the recording)\x1b[K", end="", file=sys.stderr, flush=True)


def end_of_line() -> None:
    """Take such a line away."""
    if sys.stderr.isatty():
        _getting_on.clear()
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print a line to stderr, in place of what such a block or a recording that is getting on shows there."""
    shown = (_doing or _getting_on.is_set()) and sys.stderr.isatty()
    print(f"\r\x1b[K{text}" if shown else text, file=sys.stderr, flush=True)

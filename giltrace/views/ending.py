"""Signals that ask for the end: noted, so that what was begun is ended in order and not wherever it happens to be."""

from __future__ import annotations

import signal
import sys
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Ending:
    """A context: inside it these signals do nothing but set `signal`, which is None as long as none came.

    One that this process was started to ignore, as by `nohup` or a script's `&`, stays ignored: here, and so in
    what is started from here.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __enter__(self) -> Ending:
        heeded = [number for number in _ENDING if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in heeded}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number)


def exit_when_ended(status: int) -> None:
    """Exit, and so leave nothing behind, when ended by the system or by a closed terminal."""
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) != signal.SIG_IGN:  # as `nohup` wants it
            signal.signal(ending, lambda *_: sys.exit(status))

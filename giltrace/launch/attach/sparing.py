"""Work that is to be done again and again, and not to be all that the recorder does."""

from __future__ import annotations

import time
from collections.abc import Callable

#: It takes this share of the time at most: a look at thousands of threads, or at many processes, takes long.
_SHARE = 0.1


class Sparing:
    """Does `work` when it is called, unless the last time is too short ago for how long that took."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._next = 0.0

    def __call__(self) -> None:
        """Do it, if it is time."""
        begin = time.monotonic()
        if begin >= self._next:
            self._work()
            end = time.monotonic()
            self._next = end + (end - begin) / _SHARE

"""A lock of glibc's loader that a child inherits from a thread that it does not have: ours, in the middle of `dlopen`.

Another thread of the process may fork at that moment. In the child, `fork` makes the loader's locks anew, except for
the one of its list of objects, for which the child then waits at the next library that it loads, for ever. Our thread
has it for less than a microsecond; but what it writes meanwhile may lie on a page that another fork is about to copy,
and then it waits for that fork with the lock in its hand. So its children are looked at for a while, and if one has the
lock, that is set free.
"""

from __future__ import annotations

import contextlib
import time

from giltrace.launch.attach.footprint import Footprint
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.ptrace import Denied, Gone, Late, Thread, read_memory, write_memory
from giltrace.launch.attach.sparing import Sparing
from giltrace.launch.attach.target import Target

#: A fork that had begun takes until its child is to be seen: long, where there is much memory to copy.
_SECONDS = 2.0
_STOP_SECONDS = 1.0

# pthread_mutex_t, in words of 4 bytes: lock, count, owner, users, kind.
_OWNER, _KIND = 2, 4
_RECURSIVE, _FREE = 1, bytes(16)


class InheritedLock:
    """Sets the lock free in children of `target`, and theirs, that have it from a thread of ours.

    That thread's id is `owner`, as the process saw it.
    """

    def __init__(self, target: Target, owner: int, footprint: Footprint) -> None:
        self._target, self._owner, self._footprint = target, owner, footprint
        self._seen: set[int] = set()
        self._until = time.monotonic() + _SECONDS
        self._look_around = Sparing(lambda: self._look_below(target.process))

    def look(self) -> None:
        """Look at the children that are new; to be called many times a second."""
        if self._target.library.loader is not None and time.monotonic() < self._until:
            self._look_around()

    def _look_below(self, process: Process) -> None:
        for child in process.children():
            if child not in self._seen:
                self._seen.add(child)
                with contextlib.suppress(OSError, Gone, Late, Denied):
                    self._set_free(Process(child))
                self._look_below(Process(child))

    def _set_free(self, child: Process) -> None:
        if not self._locks(child):
            return
        # While it stands still, so that it does nothing with the lock meanwhile; who waits for it then looks again.
        for tid in child.tids():
            begin = time.monotonic_ns()
            thread = Thread(tid)
            try:
                thread.stop(_STOP_SECONDS)
                for lock in self._locks(child):
                    write_memory(child.pid, lock, _FREE)
            finally:
                thread.detach()
                self._footprint.stops.append((tid, begin, time.monotonic_ns()))

    def _locks(self, child: Process) -> list[int]:
        """Where the child has a lock of the loader that is the thread's, which it does not have."""
        assert self._target.library.loader is not None
        start, end = self._target.library.loader
        words = memoryview(read_memory(child.pid, start, end - start)).cast("I")
        owned = (at - _OWNER for at, word in enumerate(words) if word == self._owner)
        return [
            start + 4 * at
            for at in owned
            if 0 <= at < len(words) - _KIND and words[at] and words[at + 1] and words[at + _KIND] == _RECURSIVE
        ]

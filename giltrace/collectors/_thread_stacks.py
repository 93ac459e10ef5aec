"""Which thread a pthread id belongs to, seen from outside: its stack tells.

CPython before 3.11 keeps only the pthread id of its threads, which is an address at the top of the thread's stack. The
stack pointer of a thread that is in a system call lies in the same mapping, and /proc shows both.
"""

from __future__ import annotations

import bisect
import os
from pathlib import Path


class ThreadStacks:
    """The stacks of one process's threads and when each was seen; `look` again and again while it runs."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._stacks: list[tuple[int, int, int]] = []
        self._unseen: set[int] = set()
        self._seen: dict[int, tuple[int, int]] = {}

    def look(self, now: int) -> None:
        """Take note of the threads that live at `now` (ns); those without a known stack are looked at closely."""
        try:
            tids = {int(name) for name in os.listdir(f"/proc/{self.pid}/task")}
        except OSError:
            return
        fresh = tids - self._seen.keys()
        self._unseen = (self._unseen & tids) | fresh
        for tid in tids:
            self._seen[tid] = (self._seen.get(tid, (now, now))[0], now)
        pointers = {tid: pointer for tid in self._unseen if (pointer := self._stack_pointer(tid))}
        if pointers:
            self._find(pointers)

    def tid(self, pthread: int, name: str, time: int) -> int | None:
        """Return the id of the thread that had `pthread` nearest to `time` (ns), None if its stack was never seen."""
        owners = [tid for low, high, tid in self._stacks if low <= pthread < high]
        if owners:
            return min(owners, key=lambda tid: max(self._seen[tid][0] - time, time - self._seen[tid][1], 0))
        # The main thread's pthread id is not in its stack.
        return self.pid if name == "MainThread" else None

    def last_seen(self, now: int) -> dict[int, list[int]]:
        """Return, of the threads that no longer lived when last looked, at or before `now`, the time each was seen."""
        newest = max((last for _, last in self._seen.values()), default=now)
        return {tid: [last] for tid, (_, last) in self._seen.items() if last < newest}

    def _stack_pointer(self, tid: int) -> int:
        try:
            words = Path(f"/proc/{self.pid}/task/{tid}/syscall").read_text().split()
        except OSError:
            return 0
        return int(words[-2], 16) if len(words) > 2 else 0  # "running" has neither

    def _find(self, pointers: dict[int, int]) -> None:
        try:
            mapped = Path(f"/proc/{self.pid}/maps").read_bytes()
        except OSError:
            return
        # Bytes, and no line but the kernel's own: a mapped file may have any name.
        lines = mapped.rstrip(b"\n").split(b"\n")
        if not lines[0]:
            return  # it has just ended
        ranges = [tuple(int(edge, 16) for edge in line.split(b" ", 1)[0].split(b"-")) for line in lines]
        lows = [low for low, _ in ranges]
        for tid, pointer in pointers.items():
            low, high = ranges[bisect.bisect_right(lows, pointer) - 1]
            if low <= pointer < high and tid != self.pid:
                self._stacks.append((low, high, tid))
            self._unseen.discard(tid)

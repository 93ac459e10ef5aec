"""Has a process put a seccomp filter on since? As the kernel says, of each of its threads."""

from __future__ import annotations

import re

from giltrace.launch.attach.process import Process

#: To look at a thread takes some 50 us, and there may be thousands.
_THREADS = 4

# Their number is told from Linux 5.9 on; before it, only whether there are any.
_FILTERS = re.compile(rb"^Seccomp(?:_filters)?:\t(\d+)$", re.M)


class Filters:
    """The seccomp filters that threads of `process` have put on since there were `before`: as many as any has now."""

    def __init__(self, process: Process, before: int | None = None) -> None:
        self._process = process
        self._next = 0
        self.before = max(map(self._count, process.tids()), default=0) if before is None else before

    def grew(self) -> bool:
        """Tell whether a thread has one more."""
        return any(map(self.grew_at, self._process.tids()))

    def grew_at_some(self) -> bool:
        """Tell the same of the first thread and some of the others, by turns."""
        tids = self._process.tids()
        some = {tids[(self._next + step) % len(tids)] for step in range(min(_THREADS, len(tids)))}
        self._next += len(some)
        return any(map(self.grew_at, some.union(tids[:1])))

    def grew_at(self, tid: int) -> bool:
        """Tell the same of one thread, which passes its filters on to those that it starts."""
        return self._count(tid) > self.before

    def _count(self, tid: int) -> int:
        try:
            with open(f"{self._process.folder}/task/{tid}/status", "rb") as status:
                found = _FILTERS.findall(status.read())
        except OSError:
            return 0  # it has ended
        return int(found[-1]) if found else 0

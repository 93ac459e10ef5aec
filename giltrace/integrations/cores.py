"""When a thread of this process was kept off its core although it could have gone on, from its own kernel events.

Time without a core is neither the GIL's nor the code's: on a loaded machine it would decide what a test says.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from giltrace.collectors import _perf
from giltrace.recording.sched import read_perf_files
from giltrace.timeline.axis import Ints

#: Pages of records, 128 each: 4,096 times off the core.
_PAGES = 64


class Away(NamedTuple):
    """The stretches (ns, disjoint and sorted) in which a thread was preempted.

    Where the kernel does not tell them, there are none, and it was without a core for `doubt` ns in all, and on one for
    `cpu` ns.
    """

    start: Ints
    end: Ints
    doubt: int = 0
    cpu: int = 0


class Absence:
    """A context that follows the thread `tid` (the calling one) from its begin on."""

    def __init__(self, tid: int) -> None:
        self._tid = tid
        self._ring: _perf.Ring | None = None
        self._path = Path()

    def __enter__(self) -> Absence:
        descriptor, path = tempfile.mkstemp(prefix="giltrace-")
        os.close(descriptor)
        self._path = Path(path)
        try:
            self._ring = _perf.Ring(_perf.open_switches(self._tid, -1, inherit=False), self._path, _PAGES)
        except OSError:
            self._ring = None
        self._delayed = self._delay()
        self._ran = time.thread_time_ns()
        return self

    def __exit__(self, *error: object) -> None:
        if self._ring is not None:
            self._ring.close()
        self._path.unlink(missing_ok=True)

    def end(self) -> Away:
        """What is known by now."""
        ran = time.thread_time_ns() - self._ran
        nothing = np.empty(0, np.int64)
        told = None
        if self._ring is not None:
            self._ring.drain()
            told = read_perf_files([self._path])
        if told is None or told.lost:
            return Away(nothing, nothing, self._delay() - self._delayed, ran)
        switches = told.switches[told.switches["tid"] == self._tid]
        left = np.flatnonzero((switches["on"] == 0) & (switches["preempted"] == 1))
        left = left[left + 1 < len(switches)]
        return Away(switches["time"][left], switches["time"][left + 1])

    def _delay(self) -> int:
        """For how long (ns) the thread was ready without a core in its life; 0 where the kernel does not count that."""
        try:
            return int(Path(f"/proc/self/task/{self._tid}/schedstat").read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return 0

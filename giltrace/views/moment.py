"""Where a view begins: the stretch of time to show, and which process it is about."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from giltrace.analysis.measure.worst import SHORTEST_STRETCH, Stretch, worst_stretch
from giltrace.errors import UsageError
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Timeline
from giltrace.views.gil_tables import GilTraceProcessor

#: ``--at``: the stretch in which threads lost most to the GIL.
WORST = "worst"
_WAIT_ID = re.compile(r"(\d+)@(\d+)")


@dataclass(frozen=True)
class Moment:
    """What to show: the stretch (`start`, `end`) in ns of CLOCK_MONOTONIC, the process, if it is about one, and the
    wait to select, as its (start, length).
    """

    start: int
    end: int
    pid: int | None
    wait: tuple[int, int] | None = None


@dataclass(frozen=True)
class Waits:
    """The waits of all processes, one row each, and the bounds of the trace; times in ns of CLOCK_MONOTONIC.

    `holder` is the process that had a GIL longest, None if none ever had one.
    """

    start: Ints
    end: Ints
    tid: Ints
    pid: Ints
    bounds: Stretch
    holder: int | None = None

    @classmethod
    def of_timeline(cls, timeline: Timeline) -> Waits:
        """Those of a recording's chosen threads."""
        columns: list[list[Ints]] = [[np.empty(0, np.int64)] for _ in range(4)]
        for process in timeline.processes:
            rows = process.waits[process.of_chosen(process.waits)]
            tids = np.array([thread.tid for thread in process.threads], np.int64)
            pids = np.full(len(rows), process.pid, np.int64)
            for column, part in zip(columns, (rows["start"], rows["end"], tids[rows["thread"]], pids), strict=True):
                column.append(part)
        start, end, tid, pid = (np.concatenate(column) for column in columns)
        held: Counter[int] = Counter()
        for process in timeline.processes:
            held[process.pid] += int((process.holds["end"] - process.holds["start"]).sum())
        holder = next((pid for pid, ns in held.most_common(1) if ns), None)
        return cls(start, end, tid, pid, Stretch(*timeline.recorded), holder)

    @classmethod
    def of_trace(cls, trace: GilTraceProcessor) -> Waits:
        """Those of a trace alone. Raises `QueryError` if it cannot be read."""
        (bounds,) = trace.query("select start_ts, end_ts from trace_bounds")
        rows = trace.query("select ts, ts + dur as end_ts, tid, pid from gil_waits")
        start, end, tid, pid = (
            np.array([row[name] for row in rows], np.int64) for name in ("ts", "end_ts", "tid", "pid")
        )
        held = trace.query("select pid from gil_holds group by pid order by sum(dur) desc limit 1")
        holder = next((int(str(row["pid"])) for row in held), None)
        return cls(start, end, tid, pid, Stretch(int(str(bounds["start_ts"])), int(str(bounds["end_ts"]))), holder)

    def at(self, where: str | int) -> Moment:
        """The moment that `where` names: `WORST`, a wait's id, or ns from the start of the trace.

        If nobody waited, the worst is the whole of it, in the process that had a GIL longest.

        Raises `UsageError` if there is no such wait or time.
        """
        if isinstance(where, int):
            return self._time(where)
        if where == WORST:
            return self._worst()
        return self._wait(where)

    def _worst(self) -> Moment:
        found = worst_stretch(self.start, self.end)
        if found is None:
            return Moment(*self.bounds, self.holder)
        inside = np.maximum(np.minimum(self.end, found.end) - np.maximum(self.start, found.start), 0)
        pids, process = np.unique(self.pid, return_inverse=True)
        lost = np.zeros(len(pids), np.int64)
        np.add.at(lost, process, inside)
        return self._moment(found.start, found.end, int(pids[lost.argmax()]))

    def _time(self, offset: int) -> Moment:
        time = self.bounds.start + offset
        if not self.bounds.start <= time <= self.bounds.end:
            length = (self.bounds.end - self.bounds.start) / 1e9
            raise UsageError(f"there is nothing at {offset / 1e9:g} s", f"the recording is {length:.3f} s long")
        half = SHORTEST_STRETCH // 2
        near = np.flatnonzero((self.start < time + half) & (self.end > time - half))
        return self._moment(time - half, time + half, int(self.pid[near[0]]) if len(near) else None)

    def _wait(self, name: str) -> Moment:
        tid, start = (int(part) for part in _WAIT_ID.fullmatch(name).groups())  # type: ignore[union-attr]
        rows = np.flatnonzero((self.tid == tid) & (self.start == start))
        if not len(rows):
            raise UsageError(f"there is no wait {name}", "column `wait` of SQL's gil_waits has the ids of all waits")
        end = int(self.end[rows[0]])
        margin = max((end - start) // 2, 1_000_000)
        return self._moment(start - margin, end + margin, int(self.pid[rows[0]]), (start, end - start))

    def _moment(self, start: int, end: int, pid: int | None, wait: tuple[int, int] | None = None) -> Moment:
        """Within the bounds: the UI ignores a stretch that is not."""
        return Moment(max(start, self.bounds.start), min(end, self.bounds.end), pid, wait)


def is_wait_id(text: str) -> bool:
    """Whether it has the form of a wait's id: its thread's id, ``@``, and when it began."""
    return _WAIT_ID.fullmatch(text) is not None

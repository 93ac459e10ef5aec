"""How large a trace gets: bounds without writing it, and a file that only counts."""

from __future__ import annotations

from typing import BinaryIO, cast

from giltrace.timeline.gathered import as_they_are
from giltrace.timeline.model import Timeline

#: Bytes that a row of each table takes in a trace: at least, usually, and at most (but for texts).
_ROWS = {
    "holds": (120, 280, 500),
    "waits": (90, 250, 500),
    "switch_requests": (0, 60, 200),
    "samples": (0, 60, 200),
    "blocks": (90, 250, 700),
    "runs": (12, 20, 40),
}
_SPAN = (40, 60, 200)
ROW_COST = {table: usual for table, (_, usual, _) in _ROWS.items()}
SPAN_COST = _SPAN[1]
_THREAD, _TASK, _FRAMES = 2_000, 200, 12


class TooLarge(Exception):
    """More was written than may be."""


class Counter:
    """A file that keeps nothing but its size; raises `TooLarge` where that passes `most`."""

    def __init__(self, most: int) -> None:
        self.size, self._most = 0, most

    def write(self, data: bytes | memoryview) -> int:
        """Count some bytes."""
        length = data.nbytes if isinstance(data, memoryview) else len(data)
        self.size += length
        if self.size > self._most:
            raise TooLarge
        return length

    @property
    def file(self) -> BinaryIO:
        """As what a trace is written to, of which it is nothing but `write`."""
        return cast(BinaryIO, self)


def at_least(timeline: Timeline) -> int:
    """A size that the whole trace is not below."""
    return _rows(timeline, 0)


def at_least_of_every_event(timeline: Timeline) -> int:
    """The same, of the trace that has those holds too that were added up in `timeline`."""
    holds, of = as_they_are(timeline)
    return _rows(timeline, 0) + _ROWS["holds"][0] * (of - holds)


def at_most(timeline: Timeline) -> int:
    """A size that the whole trace is not above."""
    total = _rows(timeline, 2) + 100_000 + _TASK * len(timeline.other_tasks)
    for process in timeline.processes:
        total += _THREAD * (1 + len(process.threads) * max(process.gils, 1))
        if process.stacks is not None:
            table = process.stacks.table
            longest = 2 * max(map(len, table.strings), default=0) + 40
            total += 2 * _FRAMES * longest * len(table)
    return total


def _rows(timeline: Timeline, which: int) -> int:
    total = _ROWS["runs"][which] * len(timeline.other_runs)
    for process in timeline.processes:
        total += sum(cost[which] * len(getattr(process, table)) for table, cost in _ROWS.items())
        total += sum(_SPAN[which] * len(spans.spans) for spans in process.spans)
    return total + sum(_SPAN[which] * len(one.rows) for one in timeline.merged)

"""Which stretches a thinned trace has every event of: those around the longest waits, then where threads lost most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from giltrace.analysis.measure.block_causes import AWAITED, block_causes
from giltrace.analysis.measure.expressions import Expressions
from giltrace.analysis.measure.worst import SHORTEST_STRETCH, Stretch, around_waits
from giltrace.exporters.perfetto.size import ROW_COST, SPAN_COST
from giltrace.exporters.perfetto.steps import Grid, events_in_steps, time_in_steps
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.model import Timeline

#: Bins are not shorter, and there are no more.
_SHORTEST, _MOST = 1_000_000, 1 << 16
#: So many of the longest waits are looked at, for this part of the room; rows are looked at so many at a time.
_LONGEST, _FOR_WAITS, _PIECE = 1000, 0.6, 1 << 18
#: No stretch costs more than this part of the room, nor all that explains the waits that reach into it.
_LARGEST = 0.25
#: Of what is dear, the next may be cheaper; but not for ever.
_TRIES = 500


class Choice(NamedTuple):
    """The stretches to keep, and the `room`: all holds during a wait that lies inside of one of these are there."""

    kept: list[tuple[int, int]]
    room: Ints


class Bins(NamedTuple):
    """The recording in bins: the ns `lost` in waits and the bytes that its events would take (`cost`), of each.

    Lost is, too, what threads were blocked by what others kept; what they awaited as such is not.
    Waits that overlap bin i reach from bin `low[i]` to bin `high[i]`; `under_way` is what those cost that are not over
    where it begins. `longest` are around the longest waits.
    """

    grid: Grid
    lost: Ints
    cost: Ints
    low: Ints
    high: Ints
    under_way: Ints
    longest: list[Stretch]

    @classmethod
    def of(cls, timeline: Timeline) -> Bins:
        """Look at all events once."""
        first, last = timeline.recorded
        grid = Grid.over(first, last, max(_SHORTEST, -(-(last - first) // _MOST)))
        lost, cost = np.zeros(grid.count, np.int64), np.zeros(grid.count, np.int64)
        low, high = np.arange(grid.count), np.arange(grid.count)
        waiting = np.zeros(grid.count, np.int64)
        for process in timeline.processes:
            waits = process.waits
            lost += time_in_steps(grid, waits["start"], waits["end"], np.zeros(len(waits), np.int64), 1)[0]
            blocks = process.blocks
            causes = block_causes(process, Expressions(process, timeline.began_ns))
            kept = np.where(np.isin(causes, AWAITED), -1, 0)
            lost += time_in_steps(grid, blocks["start"], blocks["end"], kept, 1)[0]
            for at in range(0, len(waits), _PIECE):
                begun, ended = (grid.at(waits[edge][at : at + _PIECE]) for edge in ("start", "end"))
                np.minimum.at(low, ended, begun)
                np.maximum.at(high, begun, ended)
            waiting += events_in_steps(grid, waits["start"]) - events_in_steps(grid, waits["end"])
            for table, bytes_each in ROW_COST.items():
                rows = getattr(process, table)
                times = rows["time" if "time" in rows.dtype.names else "start"]
                cost += bytes_each * events_in_steps(grid, times)
            for spans in process.spans:
                cost += SPAN_COST * events_in_steps(grid, spans.spans["start"])
        for merged in timeline.merged:
            cost += SPAN_COST * events_in_steps(grid, merged.rows["start"])
        cost += ROW_COST["runs"] * events_in_steps(grid, timeline.other_runs["start"])
        low, high = np.minimum.accumulate(low[::-1])[::-1], np.maximum.accumulate(high)
        under_way = ROW_COST["waits"] * np.append(0, np.cumsum(waiting)[:-1])
        return cls(grid, lost, cost, low, high, under_way, around_waits(*_longest(timeline), _LONGEST))

    def choose(self, budget: int, first: Sequence[tuple[int, int]] = ()) -> Choice:
        """Spend `budget` bytes: on stretches `first`, where a view begins, on the longest waits, and on the rest."""
        taken = _Taken(self, budget)
        taken.stretches(first)
        taken.worst()
        taken.waits(self.longest, int(_FOR_WAITS * budget))
        taken.blocks()
        return Choice(self._stretches(taken.kept), np.array(self._stretches(taken.paid), np.int64).reshape(-1, 2))

    def _stretches(self, bins: Bools) -> list[tuple[int, int]]:
        edges = np.flatnonzero(np.diff(np.concatenate(([False], bins, [False])).astype(np.int8)))
        times = (self.grid.start + self.grid.step * edges).tolist()
        return list(zip(times[::2], times[1::2], strict=True))


@dataclass
class _Taken:
    """What has been taken of the bins so far: those `kept`, and those `paid` for."""

    bins: Bins
    budget: int
    kept: Bools = field(init=False)
    paid: Bools = field(init=False)
    spent: int = 0

    def __post_init__(self) -> None:
        self.kept, self.paid = (np.zeros(self.bins.grid.count, np.bool_) for _ in range(2))

    def stretches(self, chosen: Sequence[tuple[int, int]]) -> None:
        """Those that are chosen, as far as there is room."""
        for start, end in chosen:
            first, last = self.bins.grid.at(np.array([start, max(end - 1, start)])).tolist()
            self._take(first, last, self.budget)

    def worst(self) -> None:
        """The stretch of `worst_stretch`, to the bin; if it is too dear the worst of half its length, and so on."""
        grid, longest = self.bins.grid, self.bins.longest
        width = max(2 * (longest[0].end - longest[0].start) if longest else 0, SHORTEST_STRETCH) * 5 // 4
        bins = min(width // grid.step + 1, grid.count)
        passed = np.append(0, np.cumsum(self.bins.lost))
        while bins:
            first = int((passed[bins:] - passed[:-bins]).argmax())
            if self._take(first, first + bins - 1, self.budget):
                return
            bins //= 2

    def waits(self, stretches: list[Stretch], most: int) -> None:
        """Those around waits, in this order; of a wait that is too dear its end: it is whole, but not explained."""
        missed = 0
        for stretch in stretches:
            first, last = self.bins.grid.at(np.array([stretch.start, stretch.end])).tolist()
            end = int(self.bins.grid.at(np.array([stretch.end - (stretch.end - stretch.start) // 12]))[0])
            if not self._take(first, last, most) and not self._take(end, end, most):
                missed += 1
            if missed > _TRIES:
                return

    def blocks(self) -> None:
        """Where threads lost most for the room that it takes; the begin, where nothing was lost."""
        grid, missed = self.bins.grid, 0
        usual = max(int(self.bins.cost.sum()) // grid.count, 1)
        width = int(np.clip(self.budget // 16 // usual, 1, max(SHORTEST_STRETCH // grid.step, 1)))
        edges = np.arange(0, grid.count, width)
        lost, cost = (np.add.reduceat(one, edges).astype(np.float64) for one in (self.bins.lost, self.bins.cost))
        for block in np.argsort(-lost / np.maximum(cost, 1), kind="stable").tolist():
            first = int(edges[block])
            missed += not self._take(first, min(first + width, grid.count) - 1, self.budget)
            if missed > _TRIES:
                return

    def _take(self, first: int, last: int, most: int) -> bool:
        """Take bins `first` to `last` if there is room, and if there is, what explains all waits in them too."""
        for low, high in ((int(self.bins.low[first]), int(self.bins.high[last])), (first, last)):
            unpaid = ~self.paid[low : high + 1]
            price = int(self.bins.cost[low : high + 1][unpaid].sum())
            # What reaches into it is whole.
            price += 0 if first and self.kept[first - 1] else int(self.bins.under_way[first])
            if price <= _LARGEST * self.budget and self.spent + price <= most:
                self.paid[low : high + 1] = self.kept[first : last + 1] = True
                self.spent += price
                return True
        return False


def _longest(timeline: Timeline) -> tuple[Ints, Ints]:
    """Start and end of the longest waits."""
    start, end = np.empty(0, np.int64), np.empty(0, np.int64)
    for process in timeline.processes:
        for at in range(0, len(process.waits), _PIECE):
            rows = process.waits[at : at + _PIECE]
            rows = rows[process.of_chosen(rows)]
            start, end = np.append(start, rows["start"]), np.append(end, rows["end"])
            order = np.argsort(start - end, kind="stable")[:_LONGEST]
            start, end = start[order], end[order]
    return start, end

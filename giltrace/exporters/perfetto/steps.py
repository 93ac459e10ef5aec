"""Time in steps of equal length: how much of each the intervals of each group cover, to the ns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from giltrace.timeline.axis import Ints

#: Rows that are counted at a time.
_PIECE = 1 << 18


@dataclass(frozen=True)
class Grid:
    """`count` steps of `step` ns each, from `start` on."""

    start: int
    step: int
    count: int

    @classmethod
    def over(cls, start: int, end: int, step: int) -> Grid:
        """The steps that cover [start, end), at least one."""
        return cls(start, step, max(-(-(end - start) // step), 1))

    def doubled(self) -> Grid:
        """The same time in steps twice as long."""
        return Grid(self.start, 2 * self.step, -(-self.count // 2))

    def at(self, times: npt.NDArray[np.int64]) -> Ints:
        """The number of the step that each time is in, the nearest of those that there are."""
        found: Ints = np.clip((times - self.start) // self.step, 0, self.count - 1)
        return found


def time_in_steps(grid: Grid, start: Ints, end: Ints, group: Ints, groups: int) -> Ints:
    """How many ns of each step the intervals of each group cover, shape (groups, steps).

    Intervals of a group may overlap: they add up. Those of a negative group are left out.
    """
    width = grid.count + 1
    inside, begun = np.zeros(groups * width, np.int64), np.zeros(groups * width, np.int64)
    for at in range(0, len(start), _PIECE):
        piece = slice(at, at + _PIECE)
        told = np.flatnonzero(group[piece] >= 0)
        key = group[piece][told].astype(np.int64) * width
        for times, sign in ((start, 1), (end, -1)):
            # From its start on an interval covers the rest of that step and all that follow; from its end on, none.
            offset = np.clip(times[piece][told] - grid.start, 0, grid.step * grid.count)
            step = offset // grid.step
            np.add.at(inside, key + step, sign * ((step + 1) * grid.step - offset))
            np.add.at(begun, key + step, sign)
    counts = begun.reshape(groups, width)
    before = np.cumsum(counts, axis=1) - counts
    total: Ints = (inside.reshape(groups, width) + grid.step * before)[:, :-1]
    return total


def events_in_steps(grid: Grid, times: Ints) -> Ints:
    """How many of the times are in each step, shape (steps,)."""
    found = np.zeros(grid.count, np.int64)
    for at in range(0, len(times), _PIECE):
        found += np.bincount(grid.at(times[at : at + _PIECE]), minlength=grid.count)
    return found


def doubled(cells: Ints) -> Ints:
    """The sums of every two steps, those of shape (groups, steps)."""
    even = cells if cells.shape[1] % 2 == 0 else np.pad(cells, ((0, 0), (0, 1)))
    total: Ints = even[:, ::2] + even[:, 1::2]
    return total

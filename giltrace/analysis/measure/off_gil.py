"""Where threads were while they were off the GIL: at the line where they gave it up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.intervals import last_acquired, last_released
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.site import Frame, Site
from giltrace.timeline.axis import Bools, Ints, LifeAxis
from giltrace.timeline.model import Array, Process, State
from giltrace.timeline.once import once

#: So many states are looked at at a time.
_PIECE = 1 << 19


class OffGil(NamedTuple):
    """The `states` of a process (dtype `STATE`), which `row`s of them follow a release, and the site (`call`) of each.

    A call is a number into `sites`, and `lines` has for each of those the first one of the same line.
    """

    states: Array
    row: Ints
    call: npt.NDArray[np.int32]
    lines: npt.NDArray[np.int32]
    sites: tuple[Site, ...]

    @property
    def place(self) -> npt.NDArray[np.int32]:
        """The line of each row, a number into `sites`; threads of several roles may be at one, and what it led to."""
        return self.lines[self.call]

    @property
    def state(self) -> npt.NDArray[np.uint8]:
        """The state of each row."""
        return self.states["state"][self.row]

    def total(self, state: State) -> Ints:
        """How long (ns) threads were in `state` at each site."""
        total = np.zeros(len(self.sites), np.int64)
        for at in range(0, len(self.row), _PIECE):
            rows = self.states.take(self.row[at : at + _PIECE])
            length = np.where(rows["state"] == state, rows["end"] - rows["start"], 0)
            total += np.bincount(self.call[at : at + _PIECE], length, len(total)).astype(np.int64)
        return np.bincount(self.lines, total, len(total)).astype(np.int64)

    def without(self, rows: Bools) -> OffGil:
        """The same but for some of its rows."""
        return self._replace(row=self.row[~rows], call=self.call[~rows])


@once
def _given(process: Process) -> npt.NDArray[np.int32]:
    """For each of the states off the GIL the stack in which its thread had given it up last, -1 if none is known."""
    axis, stacks, parts = LifeAxis.of_threads(process.threads), _at_release(process), [np.empty(0, np.int32)]
    for at in range(0, len(process.states), _PIECE):
        rows = process.states[at : at + _PIECE]
        rows = rows.take(np.flatnonzero(rows["state"] >= State.OFF_RUNNING))
        parts.append(stacks[last_released(process, axis, rows["thread"], rows["start"])])
    return np.concatenate(parts)


def _at_release(process: Process) -> npt.NDArray[np.int32]:
    """The stack at the release of each hold, and last that of none."""
    known = process.stacks
    return np.append(known.hold_end, np.int32(-1)) if known is not None else np.full(1, -1, np.int32)


def off_gil(process: Process, *, asleep: bool = False) -> OffGil:
    """Find where threads were off the GIL; nowhere without stacks or scheduling data, or where a stack is not known.

    With `asleep`, also where they slept in the kernel with it, which is told by where they gave it up next.
    """
    states = process.states
    chosen = states["state"] >= State.OFF_RUNNING
    if asleep:
        chosen |= states["state"] == State.HOLDING_BLOCKED
    row = np.flatnonzero(chosen)
    if process.stacks is None or len(row) == 0 or len(process.holds) == 0:
        return OffGil(states, row[:0], np.empty(0, np.int32), np.empty(0, np.int32), ())
    stack = _given(process)
    if asleep:
        off = states["state"][row] >= State.OFF_RUNNING
        given, stack, rows = stack, np.empty(len(row), np.int32), states.take(row[~off])
        stack[off] = given
        hold = last_acquired(process, LifeAxis.of_threads(process.threads), rows["thread"], rows["start"])
        stack[~off] = _at_release(process)[hold]
    known = stack >= 0
    if not known.all():
        row, stack = row[known], stack[known]
    sites = Sites(process)
    numbers, call = sites.numbered(states["thread"][row], stack)
    told = tuple(map(sites.site, numbers))
    # Code that is compiled of strings has many a first line in a file of the same name: the function tells them apart.
    number: dict[Frame, int] = {}
    lines = [number.setdefault(site.own_frame, at) for at, site in enumerate(told)]
    return OffGil(states, row, call, np.array(lines, np.int32), told)

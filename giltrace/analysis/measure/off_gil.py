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
        some = np.flatnonzero(self.state == state)
        row = self.row[some]
        length = self.states["end"][row] - self.states["start"][row]
        return np.bincount(self.place[some], weights=length, minlength=len(self.sites)).astype(np.int64)

    def without(self, rows: Bools) -> OffGil:
        """The same but for some of its rows."""
        return self._replace(row=self.row[~rows], call=self.call[~rows])


@once
def _released(process: Process) -> npt.NDArray[np.int32]:
    """For each of the states off the GIL the hold that its thread had given up last, -1 if none."""
    row = np.flatnonzero(process.states["state"] >= State.OFF_RUNNING)
    thread, start = process.states["thread"][row], process.states["start"][row]
    del row
    return last_released(process, LifeAxis.of_threads(process.threads), thread, start)


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
    hold = _released(process)
    if asleep:
        off = states["state"][row] >= State.OFF_RUNNING
        hold, released, with_it = np.empty(len(row), np.int32), hold, row[~off]
        hold[off] = released
        axis = LifeAxis.of_threads(process.threads)
        hold[~off] = last_acquired(process, axis, states["thread"][with_it], states["start"][with_it])
    stack = process.stacks.hold_end[hold]
    known = (hold >= 0) & (stack >= 0)
    if not known.all():
        row, stack = row[known], stack[known]
    sites = Sites(process)
    numbers, call = sites.numbered(states["thread"][row], stack)
    told = tuple(map(sites.site, numbers))
    # Code that is compiled of strings has many a first line in a file of the same name: the function tells them apart.
    number: dict[Frame, int] = {}
    lines = [number.setdefault(site.own_frame, at) for at, site in enumerate(told)]
    return OffGil(states, row, call, np.array(lines, np.int32), told)

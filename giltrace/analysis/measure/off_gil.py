"""Where threads were while they were off the GIL: at the line where they gave it up."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.analysis.measure.intervals import last_released
from giltrace.analysis.measure.sites import Classes, Sites
from giltrace.analysis.results import Site
from giltrace.timeline.axis import Ints, LifeAxis
from giltrace.timeline.model import Array, Process, State


class OffGil(NamedTuple):
    """The off-GIL `states` of a process (dtype `STATE`) that follow a release, and the line (`place`) of each.

    A place is a number into `sites`; threads of several roles may be at one.
    """

    states: Array
    place: Ints
    sites: tuple[Site, ...]

    def total(self, state: State) -> Ints:
        """How long (ns) threads were in `state` at each site."""
        rows = self.states["state"] == state
        length = (self.states["end"] - self.states["start"])[rows]
        return np.bincount(self.place[rows], weights=length, minlength=len(self.sites)).astype(np.int64)

    def without(self, thread: int) -> OffGil:
        """The same but for the thread with this number."""
        others = self.states["thread"] != thread
        return OffGil(self.states[others], self.place[others], self.sites)


def off_gil(process: Process) -> OffGil:
    """Find where threads were off the GIL; nowhere without stacks or scheduling data, or where a stack is not known."""
    states = process.states[process.states["state"] >= State.OFF_RUNNING]
    if process.stacks is None or len(states) == 0 or len(process.holds) == 0:
        return OffGil(states[:0], np.empty(0, np.int64), ())
    axis = LifeAxis.of_threads(process.threads)
    hold = last_released(process, axis, states["thread"], states["start"])
    known = (hold >= 0) & (process.stacks.hold_end[hold] >= 0)
    states, hold = states[known], hold[known]
    calls: Classes = Sites(process).classify(states["thread"], process.stacks.hold_end[hold])
    number: dict[tuple[str, int], int] = {}
    of_class = [
        number.setdefault((site.own_file, site.own_line) if site.own_file else (site.file, site.line), at)
        for at, site in enumerate(calls.sites)
    ]
    return OffGil(states, np.array(of_class, np.int64)[calls.of_row], calls.sites)

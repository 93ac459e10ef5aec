"""What lanes show of the time without the GIL: where a thread stood then, in which lock it slept and who ended that.

And which stretches of the lanes the end hung on.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.measure.activity import Doing
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.replay.critical_path import CriticalPath
from giltrace.recording.order import distinct
from giltrace.reports.html.lanes import IN_LOCK, OFF, PER_GIL, Lane, merged
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import State

#: So many stretches of the critical path are in a page, the longest.
MOST_ON_PATH = 4_000
#: So many lines that woke others up are told apart.
_MOST_WAKES = 0xFFFF


class Blocks:
    """Lays the time without the GIL over the lanes of one process, which begin at `start` (ns)."""

    def __init__(self, figures: Costed, start: int) -> None:
        self._rows, self._start = figures.activity, start
        self._causes, self._asleep = figures.block_causes, figures.asleep
        self._first = np.searchsorted(self._rows.thread, np.arange(len(figures.process.threads) + 1))
        self.wakes, self._wake = _wakes(figures)

    def over(self, lane: Lane, thread: int) -> Lane:
        """The lane of a thread, cut where blocks begin and end.

        A block for cause c has the value `IN_LOCK` + c * `PER_GIL`, and as its mix the number of its wake in `wakes`
        from 1 on, 0 if none is known. To what else it slept for, `AsleepCause` c, c * `PER_GIL` is added.
        """
        mine = np.arange(self._first[thread], self._first[thread + 1])
        total = int(lane.ends[-1]) if len(lane.ends) else 0
        edges = (self._rows.start[mine], self._rows.until(mine))
        begin, finish = (np.clip(edge - self._start, 0, total) for edge in edges)
        if not len(begin):
            return lane
        ends = distinct(np.concatenate([lane.ends, begin, finish]))
        ends = ends[ends > 0]
        starts = np.append(0, ends[:-1])
        at = np.searchsorted(lane.ends, starts, "right")
        row = np.maximum(np.searchsorted(begin, starts, "right") - 1, 0)
        within = (begin[row] <= starts) & (finish[row] > starts)
        value, stack, mix = lane.value[at], lane.stack[at], lane.mix[at]
        off = within & (value >= int(State.OFF_RUNNING)) & (value <= OFF)
        stack = np.where(off, self._rows.stack[mine][row], stack)
        blocked = off & (self._rows.doing[mine][row] == Doing.LOCK)
        block = np.where(blocked, self._rows.block(mine[row]), -1)
        value = np.where(blocked, IN_LOCK + PER_GIL * np.append(self._causes, 0)[block], value)
        slept = np.flatnonzero(off & (self._rows.doing[mine][row] == Doing.ASLEEP))
        value[slept] += (PER_GIL * self._asleep(stack[slept].astype(np.int64))).astype(value.dtype)
        mix = np.where(blocked, np.append(self._wake, 0)[block], mix)
        return merged(Lane(ends, value.astype(np.uint16), stack.astype(np.int32), mix.astype(np.uint16)))


def _wakes(f: Costed) -> tuple[list[dict[str, Any]], Ints]:
    """The lines that ended blocks, with the names of their threads, and for each block the number of its, from 1 on."""
    blocks, known = f.process.blocks, f.process.stacks
    number: Ints = np.zeros(len(blocks), np.int64)
    woken = np.flatnonzero(blocks["waker"] >= 0)
    if not len(woken):
        return [], number
    waker = blocks["waker"][woken].astype(np.int64)
    lines = Sites.own_lines(
        f.sites.classify(waker, known.wake[woken] if known is not None else np.full(len(woken), -1))
    )
    used, at = np.unique(waker * len(lines.sites) + lines.of_row, return_inverse=True)
    number[woken] = np.where(at.ravel() < _MOST_WAKES, at.ravel() + 1, 0)
    told = (divmod(one, len(lines.sites)) for one in used[:_MOST_WAKES].tolist())
    return [{"by": f.name(thread), **dataclasses.asdict(lines.sites[line])} for thread, line in told], number


def on_lanes(path: CriticalPath, lane_of: Ints, start: int, tick: int) -> list[list[int]]:
    """The stretches of a path that lie in lanes: the lane, and from when to when, in ticks from `start` on."""
    lane = lane_of[path.thread]
    begin, end = (path.start - start) // tick, -(-(path.end - start) // tick)
    longest = np.argsort(begin - end, kind="stable")[:MOST_ON_PATH]
    kept = np.sort(longest[(lane[longest] >= 0) & (end[longest] > 0)])
    return [[int(lane[at]), max(int(begin[at]), 0), int(end[at])] for at in kept]

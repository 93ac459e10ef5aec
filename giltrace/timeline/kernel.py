"""What the kernel said about threads: when each one lived, and when it ran on which core."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np

from giltrace.recording.events import Exec, SchedEvents
from giltrace.recording.order import distinct, heads, stable_order
from giltrace.timeline.axis import NEVER, Bools, Ints, concatenated_ranges
from giltrace.timeline.model import Array

#: A run before it is given to a thread: `tid` instead of the thread's index.
TID_RUN = np.dtype(
    [("start", "<i8"), ("end", "<i8"), ("pid", "<i4"), ("tid", "<i4"), ("core", "<i2"), ("preempted", "u1")]
)


class Life(NamedTuple):
    """One life of a thread id. `born` tells whether its birth was seen; `end` is NEVER if its end was not."""

    pid: int
    tid: int
    born: bool
    start: int
    end: int


class Slot(NamedTuple):
    """A stretch of a tid's time that belongs to thread `thread` of process `process` (-1: to none that was traced)."""

    tid: int
    start: int
    end: int
    process: int
    thread: int


class Kernel(NamedTuple):
    """Lives and execs by pid, each pid's in order of time, and all runs (dtype `TID_RUN`) sorted by (tid, start)."""

    lives: dict[int, list[Life]]
    runs: Array
    names: dict[int, str]
    execs: dict[int, list[Exec]]

    @classmethod
    def read(cls, sched: SchedEvents, start: int, end: int) -> Kernel:
        """Pair the switches and the births and ends of a recording that lasted from `start` to `end`."""
        tids = distinct(sched.switches["tid"])
        # There are few of them: as small numbers they are put in order in no time.
        order = stable_order(np.searchsorted(tids, sched.switches["tid"]), len(tids))
        lives = _lives(sched, order)
        runs = _runs(sched.switches, order, lives, start, end)
        by_pid: dict[int, list[Life]] = {}
        for life in sorted(_until_off_core(lives, runs), key=lambda life: life.start):
            by_pid.setdefault(life.pid, []).append(life)
        execs: dict[int, list[Exec]] = {}
        for one in sched.execs:
            execs.setdefault(one.pid, []).append(one)
        return cls(by_pid, runs, sched.names, execs)

    def assign(self, slots: list[Slot]) -> tuple[Array, Ints, Ints]:
        """Cut the runs at the bounds of the slots.

        Returns the pieces (dtype `TID_RUN`) with the process and the thread of each, in no particular order; process
        is -1 for what lies in no slot.
        """
        bounds = _bounds(self.runs)
        low, high, chosen = [], [], []
        starts, ends = self.runs["start"], self.runs["end"]
        for slot in _with_gaps(slots, list(bounds)):
            if slot.tid not in bounds:
                continue
            a, b = bounds[slot.tid]
            lo = a + int(np.searchsorted(ends[a:b], slot.start, "right"))
            hi = a + int(np.searchsorted(starts[a:b], slot.end, "left"))
            if hi > lo:
                low.append(lo)
                high.append(hi)
                chosen.append(slot)
        lows, highs = np.array(low, np.int64), np.array(high, np.int64)
        pieces: Array = self.runs.take(concatenated_ranges(lows, highs))
        columns = np.array([slot[1:] for slot in chosen], np.int64).reshape(-1, 4)
        of = np.repeat(columns, highs - lows, axis=0)
        pieces["start"] = np.maximum(pieces["start"], of[:, 0])
        cut = pieces["end"] > of[:, 1]
        pieces["end"][cut] = of[cut, 1]
        return pieces, of[:, 2], of[:, 3]


def _bounds(runs: Array) -> dict[int, tuple[int, int]]:
    """Where the runs of each tid begin and end among runs sorted by tid."""
    first = heads(runs["tid"])
    bounds = pairwise([*first.tolist(), len(runs)])
    return dict(zip(runs["tid"][first].tolist(), bounds, strict=True))


def _until_off_core(lives: list[Life], runs: Array) -> list[Life]:
    """Lives that last until the thread left its core for good: the kernel reports the end a little earlier."""
    bounds = _bounds(runs)
    longer = []
    for life in lives:
        a, b = bounds.get(life.tid, (0, 0))
        at = a + int(np.searchsorted(runs["start"][a:b], life.end, "left")) - 1
        end = int(runs["end"][at]) if at >= a and life.end < NEVER else life.end
        longer.append(life._replace(end=max(life.end, end)))
    return longer


def _with_gaps(slots: list[Slot], tids: list[int]) -> list[Slot]:
    """Slots that no longer overlap, and the time of each tid between, before and after them as slots of nobody."""
    by_tid: dict[int, list[Slot]] = {tid: [] for tid in tids}
    for slot in slots:
        by_tid.setdefault(slot.tid, []).append(slot)
    whole = []
    for tid, own in by_tid.items():
        own.sort(key=lambda slot: slot.start)
        own = [a._replace(end=min(a.end, b.start)) for a, b in pairwise(own)] + own[-1:]
        edges = [-int(NEVER), *(edge for slot in own for edge in (slot.start, slot.end)), int(NEVER)]
        whole += own
        whole += [Slot(tid, a, b, -1, -1) for a, b in zip(edges[::2], edges[1::2], strict=True) if b > a]
    return whole


def _lives(sched: SchedEvents, order: Ints) -> list[Life]:
    """The lives; in this `order` switches are sorted by tid, those of one by time."""
    tasks = sched.tasks[np.argsort(sched.tasks["tid"], kind="stable")]
    tid, born = tasks["tid"], tasks["born"] == 1
    same = np.zeros(len(tasks), np.bool_)
    same[1:] = tid[1:] == tid[:-1]
    after_end = np.zeros(len(tasks), np.bool_)
    after_end[1:] = ~born[:-1]
    # A second birth without an end in between is a duplicate, unless the end may have been lost.
    begins = ~same | (born & (after_end | (sched.lost > 0)))
    first = np.flatnonzero(begins)
    if len(first):
        ends = np.minimum.reduceat(np.where(born, NEVER, tasks["time"]), first)
        starts = np.where(born[first], tasks["time"][first], -NEVER)
    else:
        ends = starts = np.empty(0, np.int64)
    columns = (tasks["pid"][first], tid[first], born[first], starts, ends)
    lives = [Life(*row) for row in zip(*(c.tolist() for c in columns), strict=True)]
    earliest: dict[int, int] = {}
    for life in lives:
        earliest.setdefault(life.tid, life.start)
    # Threads older than the recording show in their switches only.
    older = sched.switches.take(order[heads(sched.switches["tid"].take(order))])
    for one, pid, time in zip(*(older[name].tolist() for name in ("tid", "pid", "time")), strict=True):
        if one not in earliest:
            lives.append(Life(pid, one, False, -int(NEVER), int(NEVER)))
        elif time < earliest[one]:
            lives.append(Life(pid, one, False, -int(NEVER), earliest[one]))
    return lives


def _runs(switches: Array, order: Ints, lives: list[Life], start: int, end: int) -> Array:
    steps = switches.take(order)
    on = steps["on"] == 1
    joined = steps["tid"][1:] == steps["tid"][:-1]
    closed = np.zeros(len(steps), np.bool_)
    closed[:-1] = joined & on[:-1] & ~on[1:] & (steps["cpu"][1:] == steps["cpu"][:-1])
    headless = ~on
    headless[1:] &= ~closed[:-1]
    row = np.flatnonzero(on | headless)
    runs = np.empty(len(row), TID_RUN)
    # `take` moves whole rows, an index of them each field by itself: ten times slower.
    begun, last = steps.take(row), np.where(closed[row], row + 1, row)
    runs["pid"], runs["tid"], runs["core"], runs["start"] = (begun[name] for name in ("pid", "tid", "cpu", "time"))
    begun = steps.take(last)
    runs["end"] = begun["time"]
    runs["preempted"] = np.where(begun["on"] == 1, 0, begun["preempted"])
    del begun, last

    unclosed = np.flatnonzero(on[row] & ~closed[row])
    at = row[unclosed]
    limit = np.full(len(at), max(end, int(switches["time"][-1]) if len(switches) else end), np.int64)
    following = np.minimum(at + 1, len(steps) - 1)
    limit = np.where(
        (at + 1 < len(steps)) & (steps["tid"][following] == steps["tid"][at]), steps["time"][following], limit
    )
    _, later = _on_core(switches, order[at])
    life_end = _life_bounds(lives, steps["tid"][at], steps["time"][at])[1]
    runs["end"][unclosed] = np.maximum(np.minimum(np.minimum(limit, later), life_end), runs["start"][unclosed])

    opening = np.flatnonzero(headless[row])
    at = row[opening]
    floor = np.full(len(at), start, np.int64)
    preceding = np.maximum(at - 1, 0)
    own = (at > 0) & (steps["tid"][preceding] == steps["tid"][at])
    floor = np.where(own, np.maximum(floor, steps["time"][preceding]), floor)
    earlier, _ = _on_core(switches, order[at])
    life_start = _life_bounds(lives, steps["tid"][at], steps["time"][at])[0]
    runs["start"][opening] = np.minimum(np.maximum(np.maximum(floor, earlier), life_start), runs["end"][opening])
    return runs.take(np.flatnonzero(runs["end"] > runs["start"]))


def _on_core(switches: Array, index: Ints) -> tuple[Ints, Ints]:
    """Time of the last switch on the same core before each switch, and of the first after it."""
    before, after = np.full(len(index), -NEVER), np.full(len(index), NEVER)
    for core in np.unique(switches["cpu"][index]):
        own = np.flatnonzero(switches["cpu"] == core)
        time = switches["time"][own]
        where: Bools = switches["cpu"][index] == core
        at = np.searchsorted(own, index[where])
        before[where] = np.where(at > 0, time[np.maximum(at - 1, 0)], -NEVER)
        after[where] = np.where(at + 1 < len(own), time[np.minimum(at + 1, len(own) - 1)], NEVER)
    return before, after


def _life_bounds(lives: list[Life], tid: Array, time: Array) -> tuple[Ints, Ints]:
    """Start and end of the life of `tid` that contains each `time`."""
    by_tid: dict[int, list[Life]] = {}
    for life in sorted(lives, key=lambda life: life.start):
        by_tid.setdefault(life.tid, []).append(life)
    starts = {one: np.array([life.start for life in own], np.int64) for one, own in by_tid.items()}
    low, high = np.full(len(tid), -NEVER), np.full(len(tid), NEVER)
    for i, (one, instant) in enumerate(zip(tid.tolist(), time.tolist(), strict=True)):
        at = int(np.searchsorted(starts[one], instant, "right")) - 1
        if at >= 0:
            low[i] = by_tid[one][at].start
            high[i] = by_tid[one][at].end if by_tid[one][at].end >= instant else NEVER
    return low, high

"""What each thread did at each instant of its life: with the GIL, or without it and in which lock, call or queue.

Two layers become one here: the states, and the blocks, which lie over the time off the GIL. What they do not explain is
I/O, sleep, or native code, at the line that gave the GIL up.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.asleep_causes import AsleepCause
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.measure.intervals import last_acquired, last_released
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.stretches import main_stacks
from giltrace.analysis.site import Site
from giltrace.recording.order import distinct
from giltrace.timeline.axis import Ints, LifeAxis
from giltrace.timeline.model import Process, State


class Doing(IntEnum):
    """What a thread did."""

    PYTHON = 0  #: had the GIL; without one, ran
    WAITING = 1  #: waited for the GIL
    LOCK = 2  #: was blocked in one of the interpreter's locks
    ASLEEP = 3  #: slept in the kernel, for I/O or by itself
    NATIVE = 4  #: ran native code without the GIL
    NO_CORE = 5  #: could have gone on without the GIL, but had no core
    OFF = 6  #: was off the GIL: what it did there is not known without scheduling data

    @property
    def label(self) -> str:
        """The name that reports and JSON use: "no-core"."""
        return self.name.lower().replace("_", "-")


#: What threads do without the GIL: all but having it and waiting for it.
WITHOUT = (Doing.LOCK, Doing.ASLEEP, Doing.NATIVE, Doing.NO_CORE, Doing.OFF)


class Activity(NamedTuple):
    """Stretches of threads' lives, without a gap, sorted by thread and start; one row each.

    `stack` is where the thread stood: where it waited or was blocked, where it had given the GIL up, or what stands for
    its hold; -1 where that is not known. `block` is the number of the block that the stretch lies in, -1 for none.
    """

    thread: Ints
    start: Ints
    end: Ints
    doing: npt.NDArray[np.uint8]
    stack: npt.NDArray[np.int32]
    block: Ints


_OF_STATE = np.zeros(len(State), np.uint8)
_OF_STATE[State.WAITING] = Doing.WAITING
_OF_STATE[State.OFF_RUNNING], _OF_STATE[State.OFF_RUNNABLE] = Doing.NATIVE, Doing.NO_CORE
_OF_STATE[State.OFF_BLOCKED] = Doing.ASLEEP


def activity(process: Process) -> Activity:
    """Tell what the threads of a process did, by their states, or by holds and waits where there are none."""
    thread, start, end, doing = _by_states(process) if process.has_sched else _by_holds(process)
    if process.free_threaded:
        # Nobody has to give anything up from where the GIL was switched off: who runs, runs.
        doing = np.where((doing == Doing.NATIVE) & (start >= _last_use(process)), np.uint8(Doing.PYTHON), doing)
    return _with_stacks(process, *_cut(process, thread, start, end, doing))


def _last_use(process: Process) -> int:
    """When a GIL was held last; of a build that can do without one, all that comes after was without."""
    return int(process.holds["end"].max()) if len(process.holds) else process.start


def _by_states(process: Process) -> tuple[Ints, Ints, Ints, npt.NDArray[np.uint8]]:
    rows = process.states
    return rows["thread"].astype(np.int64), rows["start"], rows["end"], _OF_STATE[rows["state"]]


def _by_holds(process: Process) -> tuple[Ints, Ints, Ints, npt.NDArray[np.uint8]]:
    """Each thread's holds and waits, and the time between them."""
    axis = LifeAxis.of_threads(process.threads)
    tables = ((process.holds, Doing.PYTHON), (process.waits, Doing.WAITING))
    first, last = (
        np.concatenate([axis.place(rows["thread"], rows[edge]) for rows, _ in tables]) for edge in ("start", "end")
    )
    doing = np.concatenate([np.full(len(rows), what, np.uint8) for rows, what in tables])
    order = np.argsort(first, kind="stable")
    first, last, doing = first[order], last[order], doing[order]
    # Damaged records may overlap: the earlier one counts.
    reach = np.maximum.accumulate(last) if len(last) else last
    first[1:] = np.maximum(first[1:], reach[:-1])
    some = reach > first
    first, last, doing = first[some], reach[some], doing[some]
    ends = axis.base + axis.ends - axis.starts
    edges = distinct(np.concatenate([axis.base, ends, first, last]))
    begin, finish = edges[:-1], edges[1:]
    thread = np.searchsorted(axis.base, begin, "right") - 1
    inside = finish <= ends[thread]
    begin, finish, thread = begin[inside], finish[inside], thread[inside]
    at = np.searchsorted(first, begin, "right") - 1
    busy = (at >= 0) & (last[np.maximum(at, 0)] > begin) if len(first) else np.zeros(len(begin), np.bool_)
    what = (
        np.where(busy, doing[np.maximum(at, 0)], np.uint8(Doing.OFF)) if len(first) else np.full(len(begin), Doing.OFF)
    )
    offset = (axis.starts - axis.base)[thread]
    return thread.astype(np.int64), begin + offset, finish + offset, what.astype(np.uint8)


def _cut(
    process: Process, thread: Ints, start: Ints, end: Ints, doing: npt.NDArray[np.uint8]
) -> tuple[Ints, Ints, Ints, npt.NDArray[np.uint8], Ints]:
    """Cut the stretches where blocks begin and end, and say which block each lies in."""
    blocks = process.blocks
    if not len(blocks) or not len(start):
        return thread, start, end, doing, np.full(len(start), -1, np.int64)
    axis = LifeAxis.of_threads(process.threads)
    begin, finish = axis.place(thread, start), axis.place(thread, end)
    first, last = (axis.place(blocks["thread"], blocks[edge]) for edge in ("start", "end"))
    order = np.argsort(first, kind="stable")
    edges = distinct(np.concatenate([begin, finish, first, last]))
    of = np.searchsorted(begin, edges[:-1], "right") - 1
    inside = (of >= 0) & (edges[1:] <= finish[np.maximum(of, 0)])
    low, high, of = edges[:-1][inside], edges[1:][inside], of[inside]
    at = np.searchsorted(first[order], low, "right") - 1
    block = np.where(at >= 0, order[np.maximum(at, 0)], -1)
    block = np.where((block >= 0) & (last[block] > low), block, -1)
    told = doing[of]
    # Woken up, it is ready, and has no core yet: that is not the lock's doing.
    asleep = (block >= 0) & (told >= Doing.LOCK) & (told != Doing.NO_CORE)
    told = np.where(asleep, np.uint8(Doing.LOCK), told)
    offset = (axis.starts - axis.base)[thread[of]]
    return thread[of], low + offset, high + offset, told, block.astype(np.int64)


def _with_stacks(
    process: Process, thread: Ints, start: Ints, end: Ints, doing: npt.NDArray[np.uint8], block: Ints
) -> Activity:
    stack = np.full(len(start), -1, np.int32)
    known = process.stacks
    if known is not None:
        if len(process.holds):
            axis = LifeAxis.of_threads(process.threads)
            on, off = np.flatnonzero(doing == Doing.PYTHON), np.flatnonzero(doing > Doing.WAITING)
            hold = last_acquired(process, axis, thread[on], start[on])
            stack[on] = np.where(hold >= 0, np.append(main_stacks(process), -1)[hold], -1)
            hold = last_released(process, axis, thread[off], start[off])
            stack[off] = np.where(hold >= 0, np.append(known.hold_end, -1)[hold], -1)
            if process.free_threaded:
                stack[start >= _last_use(process)] = -1
        if len(process.waits):
            waiting = np.flatnonzero(doing == Doing.WAITING)
            stack[waiting] = _of_waits(process, known.wait, thread[waiting], start[waiting])
        within = np.flatnonzero(block >= 0)
        stack[within] = known.block[block[within]]
    return Activity(thread, start, end, doing, stack, block)


def _of_waits(process: Process, stacks: npt.NDArray[np.int32], thread: Ints, time: Ints) -> npt.NDArray[np.int32]:
    """Of the wait that each `thread` had begun last by `time` the stack, of those of all waits."""
    axis = LifeAxis.of_threads(process.threads)
    place = axis.place(process.waits["thread"], process.waits["start"])
    order = np.argsort(place, kind="stable")
    at = np.searchsorted(place[order], axis.place(thread, time), "right") - 1
    wait = order[np.maximum(at, 0)]
    return np.where((at >= 0) & (process.waits["thread"][wait] == thread), stacks[wait], np.int32(-1))


def during(found: Activity, axis: LifeAxis, thread: Ints, start: Ints, end: Ints, weight: Ints) -> Ints:
    """How much (ns, times `weight`) of each stretch lies in the times [start, end) of a `thread`, one row each."""
    first, last = axis.place(thread, start), axis.place(thread, end)
    return _spent(first, last, weight, axis.place(found.thread, found.end)) - _spent(
        first, last, weight, axis.place(found.thread, found.start)
    )


def _spent(first: Ints, last: Ints, weight: Ints, until: Ints) -> Ints:
    """The time in weighted intervals, which may overlap, before each instant.

    Sums may wrap around: what is left of them when they are subtracted from each other is right.
    """
    total = np.zeros(len(until), np.int64)
    for edge, sign in ((first, 1), (last, -1)):
        order = np.argsort(edge, kind="stable")
        at = np.searchsorted(edge[order], until, "right")
        level, moment = (np.append(0, np.cumsum(column)) for column in (weight[order], (weight * edge)[order]))
        total += sign * (level[at] * until - moment[at])
    return total


class Kind(NamedTuple):
    """What is told of some stretches together: where they were, what was done there, and what for: what lock it was, or
    what it slept for.
    """

    site: Site
    doing: str
    cause: str


def by_line(
    sites: Sites, found: Activity, causes: Ints, row: Ints, asleep: Callable[[Ints], Ints] | None = None
) -> tuple[tuple[Kind, ...], Ints]:
    """Sort these rows by own line, what was done there, and for what: the kinds, and that of each row.

    `causes` are those of the blocks, and `asleep` tells the `AsleepCause` of stacks, where that is asked for.
    """
    lines = Sites.own_lines(sites.classify(found.thread[row], found.stack[row]))
    doing = found.doing[row].astype(np.int64)
    cause = np.where(doing == Doing.LOCK, causes[found.block[row]] if len(causes) else 0, 0)
    slept = np.flatnonzero(doing == Doing.ASLEEP)
    if asleep is not None:
        cause[slept] = asleep(found.stack[row[slept]].astype(np.int64))
    key = (lines.of_row * len(Doing) + doing) * len(BlockCause) + cause
    used, number = np.unique(key, return_inverse=True)
    kinds = []
    for one in used.tolist():
        rest, because = divmod(one, len(BlockCause))
        line, what = divmod(rest, len(Doing))
        kinds.append(Kind(lines.sites[line], Doing(what).label, _because(what, because)))
    return tuple(kinds), number.ravel().astype(np.int64)


def _because(doing: int, cause: int) -> str:
    if doing == Doing.LOCK:
        return BlockCause(cause).label
    return AsleepCause(cause).label if doing == Doing.ASLEEP else ""

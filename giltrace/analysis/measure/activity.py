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
from giltrace.analysis.measure.own_work import work_stacks
from giltrace.analysis.measure.sites import Sites, own_line
from giltrace.analysis.site import Site
from giltrace.recording.order import distinct
from giltrace.timeline.axis import NEVER, Bools, Ints, LifeAxis, concatenated_ranges, ended_within, union
from giltrace.timeline.model import Process, State

Numbers = npt.NDArray[np.int32]

#: So many rows are worked on at a time: what is made of all of them is large beside what is kept.
_PIECE = 1 << 19


class Doing(IntEnum):
    """What a thread did."""

    PYTHON = 0  #: had the GIL; without one, ran
    WAITING = 1  #: waited for the GIL
    LOCK = 2  #: was blocked in one of the interpreter's locks
    ASLEEP = 3  #: slept in the kernel, for I/O or by itself
    NATIVE = 4  #: ran native code without the GIL
    NO_CORE = 5  #: could have gone on without the GIL, but had no core
    OFF = 6  #: was off the GIL: what it did there is not known without scheduling data
    ASLEEP_WITH_GIL = 7  #: slept in the kernel with the GIL: `by_line` tells it apart from `PYTHON`

    @property
    def label(self) -> str:
        """The name that reports and JSON use: "no-core"."""
        return self.name.lower().replace("_", "-")


#: What threads do without the GIL.
WITHOUT = (Doing.LOCK, Doing.ASLEEP, Doing.NATIVE, Doing.NO_CORE, Doing.OFF)


#: What is told beside a line is one of so many.
_RESTS = len(Doing) * len(BlockCause)


class InBlocks(NamedTuple):
    """The rows of stretches that lie in blocks: ``low[i]:high[i]``, in order, in the block number ``block[i]``."""

    low: Ints
    high: Ints
    block: Ints


class Activity(NamedTuple):
    """Stretches of threads' lives, without a gap, sorted by thread and start; one row each. Threads live up to `ends`.

    `stack` is where the thread stood: where it waited or was blocked, where it had given the GIL up, or what stands for
    its hold (`work_stacks`); -1 where that is not known. Of those with the GIL (`Doing.PYTHON`), `kept` are the ones
    that were asleep in the kernel.
    """

    thread: Numbers
    start: Ints
    doing: npt.NDArray[np.uint8]
    stack: Numbers
    kept: Bools
    ends: Ints
    in_blocks: InBlocks

    def block(self, row: Ints) -> Ints:
        """The number of the block that each of these stretches lies in, -1 for none."""
        low, high, block = self.in_blocks
        at = np.searchsorted(low, row, "right") - 1
        return np.where(row < np.append(high, 0)[at], np.append(block, -1)[at], -1)

    def until(self, row: Ints) -> Ints:
        """When each of these stretches ends: where its thread's next one begins, or with the thread."""
        return _until(self.thread, self.start, self.ends, row)

    def length(self, row: Ints) -> Ints:
        """How long each of these stretches is, in ns."""
        return self.until(row) - self.start[row]


def _until(thread: Numbers, start: Ints, ends: Ints, row: Ints) -> Ints:
    after = np.minimum(row + 1, len(start) - 1)
    goes_on = (after > row) & (thread[after] == thread[row])
    return np.where(goes_on, start[after], ends[thread[row]])


_OF_STATE = np.zeros(len(State), np.uint8)
_OF_STATE[State.WAITING] = Doing.WAITING
_OF_STATE[State.OFF_RUNNING], _OF_STATE[State.OFF_RUNNABLE] = Doing.NATIVE, Doing.NO_CORE
_OF_STATE[State.OFF_BLOCKED], _OF_STATE[State.HOLDING_BLOCKED] = Doing.ASLEEP, Doing.ASLEEP_WITH_GIL


def activity(process: Process) -> Activity:
    """Tell what the threads of a process did, by their states, or by holds and waits where there are none."""
    thread, start, doing = _by_states(process) if process.has_sched else _by_holds(process)
    if process.free_threaded:
        # Nobody has to give anything up from where the GIL was switched off: who runs, runs.
        doing = np.where((doing == Doing.NATIVE) & (start >= _last_use(process)), np.uint8(Doing.PYTHON), doing)
    return _with_stacks(process, *_cut(process, thread, start, doing))


def _last_use(process: Process) -> int:
    """When a GIL was held last; of a build that can do without one, all that comes after was without."""
    return int(process.holds["end"].max()) if len(process.holds) else process.start


def _by_states(process: Process) -> tuple[Numbers, Ints, npt.NDArray[np.uint8]]:
    rows = process.states
    return rows["thread"].astype(np.int32), rows["start"], _OF_STATE[rows["state"]]


def _by_holds(process: Process) -> tuple[Numbers, Ints, npt.NDArray[np.uint8]]:
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
    begin, thread = begin[inside], thread[inside]
    at = np.searchsorted(first, begin, "right") - 1
    busy = (at >= 0) & (last[np.maximum(at, 0)] > begin) if len(first) else np.zeros(len(begin), np.bool_)
    what = (
        np.where(busy, doing[np.maximum(at, 0)], np.uint8(Doing.OFF)) if len(first) else np.full(len(begin), Doing.OFF)
    )
    offset = (axis.starts - axis.base)[thread]
    return thread.astype(np.int32), begin + offset, what.astype(np.uint8)


def _cut(
    process: Process, thread: Numbers, start: Ints, doing: npt.NDArray[np.uint8]
) -> tuple[Numbers, Ints, npt.NDArray[np.uint8], InBlocks]:
    """Cut the stretches where blocks begin and end, and say which block each lies in."""
    blocks = process.blocks
    if not len(blocks) or not len(start):
        return thread, start, doing, InBlocks(*np.empty((3, 0), np.int64))
    axis = LifeAxis.of_threads(process.threads)
    first, last = (axis.place(blocks["thread"], blocks[edge]) for edge in ("start", "end"))
    # The stretches are in order: there is nothing to sort but the edges of the blocks.
    edges = distinct(np.concatenate([first, last]))
    of = _before(axis, thread, start, edges + 1) - 1
    own = np.searchsorted(axis.base, edges, "right") - 1
    time = edges + (axis.starts - axis.base)[own]
    inner = (of >= 0) & (thread[of] == own) & (start[of] < time) & (time < _until(thread, start, axis.ends, of))
    of, time = of[inner], time[inner]
    if len(of):
        start, thread, doing = (
            np.insert(start, of + 1, time),
            np.insert(thread, of, thread[of]),
            np.insert(doing, of, doing[of]),
        )
    # Of blocks that overlap, as damaged records may have it, the one that began last counts.
    order = np.argsort(first, kind="stable")
    first, last = first[order], np.minimum(last[order], np.append(first[order][1:], NEVER))
    low, high = (_before(axis, thread, start, edge) for edge in (first, np.maximum(last, first)))
    row, some = concatenated_ranges(low, high), np.flatnonzero(high > low)
    # Woken up, it is ready, and has no core yet: that is not the lock's doing.
    asleep = row[np.isin(doing[row], WITHOUT) & (doing[row] != Doing.NO_CORE)]
    doing[asleep] = Doing.LOCK
    return thread, start, doing, InBlocks(low[some], high[some], order[some])


def _before(axis: LifeAxis, thread: Numbers, start: Ints, place: Ints) -> Ints:
    """How many stretches begin before each place on the axis."""
    first = np.searchsorted(thread, np.arange(len(axis.starts) + 1, dtype=np.int32))
    own = np.searchsorted(axis.base, place, "right") - 1
    return ended_within(start, first[own], first[own + 1], place - 1 + (axis.starts - axis.base)[own])


def _with_stacks(
    process: Process, thread: Numbers, start: Ints, doing: npt.NDArray[np.uint8], in_blocks: InBlocks
) -> Activity:
    stack = np.full(len(start), -1, np.int32)
    kept = doing == Doing.ASLEEP_WITH_GIL
    doing[kept] = Doing.PYTHON
    known = process.stacks
    if known is not None:
        if len(process.holds):
            axis = LifeAxis.of_threads(process.threads)
            main, given = np.append(work_stacks(process), -1), np.append(known.hold_end, -1)
            for at in range(0, len(start), _PIECE):
                own = slice(at, at + _PIECE)
                # Without a hold, -1, it is the last one that was put there.
                on, off = (
                    np.flatnonzero(some) + at for some in (doing[own] == Doing.PYTHON, doing[own] > Doing.WAITING)
                )
                stack[on] = main[last_acquired(process, axis, thread[on], start[on])]
                stack[off] = given[last_released(process, axis, thread[off], start[off])]
            if process.free_threaded:
                stack[start >= _last_use(process)] = -1
        if len(process.waits):
            waiting = np.flatnonzero(doing == Doing.WAITING)
            stack[waiting] = _of_waits(process, known.wait, thread[waiting], start[waiting])
        low, high, block = in_blocks
        stack[concatenated_ranges(low, high)] = np.repeat(known.block[block], high - low)
    ends = np.array([one.end for one in process.threads], np.int64)
    return Activity(thread, start, doing, stack, kept, ends, in_blocks)


def _of_waits(process: Process, stacks: Numbers, thread: Numbers, time: Ints) -> Numbers:
    """Of the wait that each `thread` had begun last by `time` the stack, of those of all waits."""
    axis = LifeAxis.of_threads(process.threads)
    place = axis.place(process.waits["thread"], process.waits["start"])
    order = np.argsort(place, kind="stable")
    at = np.searchsorted(place[order], axis.place(thread, time), "right") - 1
    wait = order[np.maximum(at, 0)]
    return np.where((at >= 0) & (process.waits["thread"][wait] == thread), stacks[wait], np.int32(-1))


def during(found: Activity, axis: LifeAxis, thread: Ints, start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """How much (ns) of which stretches lies in the times [start, end) of a `thread`: their rows, and the sums.

    Times that overlap count each by itself.
    """
    first, last = axis.place(thread, start), axis.place(thread, end)
    # Each time from the stretch on that it begins in; they are few, or short, beside all stretches.
    low, high = (_before(axis, found.thread, found.start, place) for place in (first + 1, last))
    low = np.maximum(low - 1, 0)
    order = np.argsort(low, kind="stable")
    row = concatenated_ranges(*union(low[order], np.maximum(high, low)[order]))
    begin, finish = (axis.place(found.thread[row], edge) for edge in (found.start[row], found.until(row)))
    spent = _spent(first, last, finish) - _spent(first, last, begin)
    some = np.flatnonzero(spent > 0)
    return row[some], spent[some]


def _spent(first: Ints, last: Ints, until: Ints) -> Ints:
    """The time in intervals, which may overlap, before each instant.

    Sums may wrap around: what is left of them when they are subtracted from each other is right.
    """
    total = np.zeros(len(until), np.int64)
    for edges, sign in ((first, 1), (last, -1)):
        edge = np.sort(edges)
        at = np.searchsorted(edge, until, "right")
        total += sign * (at * until - np.append(0, np.cumsum(edge))[at])
    return total


class Kind(NamedTuple):
    """What is told of some stretches together: where they were, what was done there, and what for: what lock it was, or
    what it slept for.
    """

    site: Site
    doing: str
    cause: str


def by_line(
    sites: Sites,
    found: Activity,
    causes: Ints,
    row: Ints,
    ns: Ints | None = None,
    asleep: Callable[[Ints], Ints] | None = None,
) -> list[tuple[Kind, int]]:
    """Add up what these rows took, or `ns` of them, by own line, what was done there, and for what: the longest first.

    `causes` are those of the blocks, and `asleep` tells the `AsleepCause` of stacks, where that is asked for.
    """
    of_class: dict[tuple[int, int], int] = {}
    for at in range(0, len(row), _PIECE):
        some = row[at : at + _PIECE]
        stack, doing = found.stack[some], found.doing[some].astype(np.int64)
        doing[found.kept[some]] = Doing.ASLEEP_WITH_GIL
        cause = np.zeros(len(some), np.int64)
        locked, slept = (np.flatnonzero(doing == one) for one in (Doing.LOCK, Doing.ASLEEP))
        cause[locked] = causes[found.block(some[locked])] if len(causes) else 0
        if asleep is not None:
            cause[slept] = asleep(stack[slept].astype(np.int64))
        numbers, of_row = sites.numbered(found.thread[some], stack)
        key = (of_row * len(Doing) + doing) * len(BlockCause) + cause
        total = np.bincount(key, weights=found.length(some) if ns is None else ns[at : at + _PIECE])
        for one in np.flatnonzero(total).tolist():
            number, rest = divmod(one, _RESTS)
            kind = numbers[number], rest
            of_class[kind] = of_class.get(kind, 0) + int(total[one])
    line: dict[Site, int] = {}
    of_kind: dict[tuple[int, int], int] = {}
    for (number, rest), spent in sorted(of_class.items()):
        site = own_line(sites.site(number))
        kind = line.setdefault(site, len(line)), rest
        of_kind[kind] = of_kind.get(kind, 0) + spent
    told = list(line)
    kinds = []
    for (of_line, rest), spent in sorted(of_kind.items(), key=lambda one: (-one[1], one[0])):
        what, because = divmod(rest, len(BlockCause))
        kinds.append((Kind(told[of_line], Doing(what).label, _because(what, because)), spent))
    return kinds


def _because(doing: int, cause: int) -> str:
    if doing == Doing.LOCK:
        return BlockCause(cause).label
    return AsleepCause(cause).label if doing == Doing.ASLEEP else ""

"""Merge holds, waits and runs into the one state that each thread is in at each instant."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording.order import stable_order, whole
from giltrace.timeline.axis import Bools, Ints, LifeAxis
from giltrace.timeline.model import STATE, Array, State

# What a boundary changes. All boundaries of a process are sorted as one int64 array, the kind in the low bits.
_BITS = 4
_HOLD, _UNHOLD, _WAIT, _UNWAIT, _ON, _ON_AGAIN, _OFF, _PREEMPTED, _BORN, _BOUND = range(10)
_ONE_HOLD, _ONE_WAIT, _ONE_RUN, _ONE_READY = 1, 1 << 16, 1 << 32, 1 << 48
_CHANGE = np.zeros(1 << _BITS, np.int64)
_CHANGE[[_HOLD, _UNHOLD]] = _ONE_HOLD, -_ONE_HOLD
_CHANGE[[_WAIT, _UNWAIT]] = _ONE_WAIT, -_ONE_WAIT
_CHANGE[[_ON, _OFF]] = _ONE_RUN, -_ONE_RUN
_CHANGE[_ON_AGAIN] = _ONE_RUN - _ONE_READY
_CHANGE[_PREEMPTED] = _ONE_READY - _ONE_RUN
_CHANGE[_BORN] = _ONE_READY


def _state_table() -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """The state for each combination of hold (1), wait (2), run (4) and runnable (8)."""
    table = np.empty(16, np.uint8)
    for bits in range(16):
        running, ready = bool(bits & 4), bool(bits & 8)
        if bits & 2:
            state = State.WAITING
        elif bits & 1:
            state = State.HOLDING_RUNNING if running else State.HOLDING_RUNNABLE if ready else State.HOLDING_BLOCKED
        else:
            state = State.OFF_RUNNING if running else State.OFF_RUNNABLE if ready else State.OFF_BLOCKED
        table[bits] = state
    return table


_STATE_OF = _state_table()
#: Threads with so many boundaries are tiled at a time, or one that has more: it takes no more memory than they do.
_PIECE = 1 << 20


def thread_states(starts: Ints, ends: Ints, born: Bools, holds: Array, waits: Array, runs: Array) -> Array:
    """Tile the lifetime of every thread with states; dtype `STATE`, sorted by (thread, start).

    `starts`, `ends` and `born` are per thread; `born` threads are runnable until their first run. Runs must be
    sorted by (thread, start) and lie within the lifetimes. Waiting wins over what the core did meanwhile.
    """
    threads = len(starts)
    tables = [_ByThread.of(rows, threads) for rows in (holds, waits, runs)]
    reach = 2 * (sum(table.first for table in tables) + np.arange(threads + 1))
    # Memory that is not written to is none.
    states, done = np.empty(int(reach[-1]), STATE), 0
    low = 0
    while low < threads:
        high = max(int(np.searchsorted(reach, reach[low] + _PIECE, "right")) - 1, low + 1)
        own = slice(low, high)
        axis = LifeAxis.of(starts[own], ends[own])
        used, waiting, ran = (table.of_threads(low, high) for table in tables)
        part = _tiles(axis, *_sweep(axis, _boundaries(axis, born[own], used, waiting, ran)))
        part["thread"] += np.uint32(low)
        whole(states)[done : done + len(part)] = whole(part)
        done += len(part)
        low = high
    return states[:done]


class _ByThread(NamedTuple):
    """Rows in the `order` of their threads: those of thread i are ``first[i]:first[i + 1]``."""

    rows: Array
    order: npt.NDArray[np.intp]
    first: Ints

    @classmethod
    def of(cls, rows: Array, threads: int) -> _ByThread:
        thread = rows["thread"]
        count = np.bincount(thread, minlength=threads)
        return cls(rows, stable_order(thread, threads), np.append(0, np.cumsum(count)).astype(np.int64))

    def of_threads(self, low: int, high: int) -> Array:
        """Those of the threads from `low` up to `high`, which are numbered from 0 on."""
        rows: Array = self.rows.take(self.order[self.first[low] : self.first[high]])
        rows["thread"] -= np.uint32(low)
        return rows


def _tiles(axis: LifeAxis, position: Ints, change: Ints) -> Array:
    """The states between the boundaries, with what changes at each."""
    level = np.cumsum(change)
    last = np.flatnonzero(np.append(position[1:] != position[:-1], True))
    position, level = position[last], level[last]
    index = ((level & 0xFFFF) != 0).astype(np.uint8)
    for bit, shift in ((1, 16), (2, 32), (3, 48)):
        index |= (((level >> shift) & 0xFFFF) != 0).astype(np.uint8) << np.uint8(bit)
    state = _STATE_OF[index]

    at = np.searchsorted(position, axis.base)
    thread = np.repeat(np.arange(len(at), dtype=np.uint32), np.diff(np.append(at, len(position))))
    # A thread's first stretch follows the end of the previous thread, so it is always kept.
    keep = np.append(True, state[1:] != state[:-1])
    keep[at] = True
    # Its last boundary is where it is over.
    keep[np.searchsorted(position, axis.base + axis.ends - axis.starts)] = False
    chosen = np.flatnonzero(keep)
    states = np.empty(len(chosen), STATE)
    thread = thread[chosen]
    states["thread"] = thread
    states["state"] = state[chosen]
    offset = (axis.starts - axis.base)[thread]
    states["start"] = position[chosen] + offset
    closing = np.append(chosen[1:], len(position))
    until = position[np.minimum(closing, len(position) - 1)] + offset
    states["end"] = np.minimum(until, axis.ends[thread])
    return states


def _boundaries(axis: LifeAxis, born: Bools, holds: Array, waits: Array, runs: Array) -> Ints:
    everyone = np.arange(len(axis.starts))
    first = np.ones(len(runs), np.bool_)
    first[1:] = runs["thread"][1:] != runs["thread"][:-1]
    again = np.empty(len(runs), np.bool_)
    again[1:] = runs["preempted"][:-1] == 1
    again[first] = born[runs["thread"][first]]
    parts = [
        axis.place(everyone, axis.starts) << _BITS | np.where(born, _BORN, _BOUND),
        axis.place(everyone, axis.ends) << _BITS | _BOUND,
        axis.place(runs["thread"], runs["start"]) << _BITS | np.where(again, _ON_AGAIN, _ON),
        axis.place(runs["thread"], runs["end"]) << _BITS | np.where(runs["preempted"] == 1, _PREEMPTED, _OFF),
    ]
    for intervals, begin, finish in ((holds, _HOLD, _UNHOLD), (waits, _WAIT, _UNWAIT)):
        parts.append(axis.place(intervals["thread"], intervals["start"]) << _BITS | begin)
        parts.append(axis.place(intervals["thread"], intervals["end"]) << _BITS | finish)
    return np.concatenate(parts)


def _sweep(axis: LifeAxis, keys: Ints) -> tuple[Ints, Ints]:
    """Positions of all boundaries in order, and what changes at each.

    A thread that is runnable when it ends would carry that over into the next one: that is taken back at its end.
    """
    keys.sort()
    position = keys >> _BITS
    change = _CHANGE[keys & ((1 << _BITS) - 1)]
    at = np.searchsorted(position, axis.base)
    if len(at):
        final = np.append(at[1:], len(position)) - 1
        change[final] -= np.add.reduceat(change, at)
    return position, change

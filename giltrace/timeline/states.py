"""Merge holds, waits and runs into the one state that each thread is in at each instant."""

from __future__ import annotations

import numpy as np

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


def thread_states(starts: Ints, ends: Ints, born: Bools, holds: Array, waits: Array, runs: Array) -> Array:
    """Tile the lifetime of every thread with states; dtype `STATE`, sorted by (thread, start).

    `starts`, `ends` and `born` are per thread; `born` threads are runnable until their first run. Runs must be
    sorted by (thread, start) and lie within the lifetimes. Waiting wins over what the core did meanwhile.
    """
    axis = LifeAxis.of(starts, ends)
    position, change = _sweep(axis, _boundaries(axis, born, holds, waits, runs))
    level = np.cumsum(change)
    del change
    last = np.empty(len(position), np.bool_)
    last[:-1] = position[1:] != position[:-1]
    last[-1:] = True
    position, level = position[last], level[last]
    bits = (level & 0xFFFF) != 0
    index = bits.astype(np.uint8)
    for bit, shift in ((1, 16), (2, 32), (3, 48)):
        index |= (((level >> shift) & 0xFFFF) != 0).astype(np.uint8) << np.uint8(bit)
    del level, bits
    state = _STATE_OF[index]

    at = np.searchsorted(position, axis.base)
    thread = np.repeat(np.arange(len(starts)), np.diff(np.append(at, len(position))))
    over = position == (axis.base + ends - starts)[thread]
    keep = ~over
    keep[1:] &= over[:-1] | (state[1:] != state[:-1])
    # A thread's first stretch follows the end of the previous thread, so it is always kept.
    chosen = np.flatnonzero(keep)
    states = np.empty(len(chosen), STATE)
    thread = thread[chosen]
    states["thread"] = thread
    states["state"] = state[chosen]
    offset = (starts - axis.base)[thread]
    states["start"] = position[chosen] + offset
    closing = np.append(chosen[1:], len(position))
    until = position[np.minimum(closing, len(position) - 1)] + offset
    states["end"] = np.minimum(until, ends[thread])
    return states


def _boundaries(axis: LifeAxis, born: Bools, holds: Array, waits: Array, runs: Array) -> Ints:
    threads = len(axis.starts)
    everyone = np.arange(threads)
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

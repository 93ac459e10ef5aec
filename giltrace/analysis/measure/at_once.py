"""How many threads of a process were in which states at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Array, Process, State
from giltrace.timeline.once import once

#: The states in which a thread runs.
RUNNING = (State.HOLDING_RUNNING, State.OFF_RUNNING)
_HAD = (State.HOLDING_RUNNING, State.HOLDING_BLOCKED)
_READY = (*RUNNING, State.HOLDING_RUNNABLE, State.OFF_RUNNABLE)
# Room for the count of one kind of states beside those of others: no process has so many threads.
_ROOM = 20
#: So many states are looked at at a time.
_PIECE = 1 << 19


class AtOnce(NamedTuple):
    """Wall time in ns: in which at least one thread ran, could have (`ready`: it ran, or had no core), and two could.

    And between two instants: in which one had a GIL, not counting what was starved; and in which threads could run and
    none had a core.
    """

    ran: int
    ready: int
    several_ready: int
    had: int
    starved: int


@once
def at_once(process: Process, begin: int, end: int) -> AtOnce:
    """Measure a process with scheduling data, the last two figures between `begin` and `end`."""
    total = np.zeros(len(AtOnce._fields), np.int64)
    for time, (had, ran, ready) in levels(process.states, (_HAD, RUNNING, _READY)):
        length, inside = np.diff(time), np.diff(np.clip(time, begin, end))
        runs, could = ran > 0, ready > 0
        starved = could & ~runs
        of = ((length, runs), (length, could), (length, ready > 1), (inside, (had > 0) & ~starved), (inside, starved))
        total += [int(ns[there].sum()) for ns, there in of]
    return AtOnce(*total.tolist())


def levels(states: Array, kinds: Sequence[tuple[State, ...]]) -> Iterator[tuple[Ints, list[Ints]]]:
    """Cut time where a thread's state changes: the instants, and how many were in each kind of states up to the next.

    Where several change at once, the instant comes as often, with no time in between. All come in pieces, each of which
    goes on at the instant that the one before ended with. There are three kinds at most. Before the first instant and
    after the last one there was nobody in any.
    """
    if len(states) == 0:
        return
    bits, kind_bits, origin = len(kinds), np.zeros(len(State), np.uint8), int(states["start"].min())
    for at, kind in enumerate(kinds):
        kind_bits[list(kind)] |= 1 << at
    # Memory that is not written to is none.
    keys, filled = np.empty(2 * len(states), np.int64), 0
    for at in range(0, len(states), _PIECE):
        some = _changes(states[at : at + _PIECE], kind_bits, bits, origin)
        keys[filled : filled + len(some)] = some
        filled += len(some)
    keys = keys[:filled]
    keys.sort()
    number = np.array([sum((key >> at & 1) << _ROOM * at for at in range(bits)) for key in range(1 << bits)], np.int64)
    change = (number[np.newaxis, :] - number[:, np.newaxis]).ravel()
    before = 0
    for at in range(0, len(keys), _PIECE):
        piece = keys[at : at + _PIECE + 1]  # and the first one of the next
        level = change.take(piece[:_PIECE] & (len(change) - 1))
        level[0] += before
        np.cumsum(level, out=level)
        before, level = int(level[-1]), level[: len(piece) - 1]
        yield (piece >> 2 * bits) + origin, [level >> _ROOM * kind & ((1 << _ROOM) - 1) for kind in range(bits)]


def _changes(states: Array, kind_bits: npt.NDArray[np.uint8], bits: int, origin: int) -> Ints:
    """One integer for each change, which sorts much faster than an index.

    It has the time since `origin`, a bit for each kind that somebody was in before, and one for each from then on.
    """
    of, before = kind_bits[states["state"]], np.zeros(len(states), np.uint8)
    # Who goes on from one state to the next is one change, or none: so it is half the work.
    goes_on = states["end"][:-1] == states["start"][1:]
    before[1:] = np.where(goes_on, of[:-1], 0)
    row, over = np.flatnonzero(before != of), np.flatnonzero((of != 0) & ~np.append(goes_on, False))
    keys = np.concatenate([states["start"][row], states["end"][over]])
    keys -= origin
    keys <<= 2 * bits
    keys[: len(row)] |= before[row] << bits | of[row]
    keys[len(row) :] |= of[over] << bits
    return keys

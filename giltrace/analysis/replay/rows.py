"""What each thread did, in rows: it slept, ran, was ready without a core, or slept with the GIL."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.timeline.axis import NEVER, Bools, Ints, LifeAxis
from giltrace.timeline.model import Process, State
from giltrace.timeline.once import once

#: Threads with more steps than this together are replayed in coarser ones.
MOST_STEPS = 10_000

#: So many rows are looked at at a time.
_PIECE = 1 << 19

#: What threads do in a row.
DELAY, CPU, READY, HELD = range(4)
_KIND = np.full(len(State), -1, np.int8)
_KIND[[State.HOLDING_RUNNING, State.OFF_RUNNING]] = CPU
_KIND[State.OFF_BLOCKED] = DELAY
_KIND[State.HOLDING_BLOCKED] = HELD
_KIND[[State.HOLDING_RUNNABLE, State.OFF_RUNNABLE]] = READY


@dataclass
class Rows:
    """Stretches of each `kind`, sorted by (thread, start).

    Of delay off the GIL and with it held, of running, and of being ready without a core.
    """

    thread: npt.NDArray[Any]
    start: Ints
    end: Ints
    kind: npt.NDArray[np.int8]
    axis: LifeAxis

    def keep(self, chosen: npt.NDArray[Any] | slice) -> Rows:
        """Those of the rows."""
        return Rows(self.thread[chosen], self.start[chosen], self.end[chosen], self.kind[chosen], self.axis)

    @cached_property
    def reach(self) -> Ints:
        """The place of each row's end on the axis."""
        return self.axis.place(self.thread, self.end)


@once
def read_rows(process: Process) -> Rows:
    """What its threads did, but for what comes after the last time that each one ran or held a GIL: nothing waits for
    that.
    """
    rows = _from_states(process) if process.has_sched and len(process.states) else _from_holds(process)
    last = np.full(len(process.threads), -1, np.int64)
    for at in range(0, len(rows.thread), _PIECE):
        piece = rows.keep(slice(at, at + _PIECE))
        ran = np.flatnonzero((piece.kind == CPU) | (piece.kind == HELD))
        # Of several values for one index, numpy keeps the last.
        last[piece.thread[ran]] = ran + at
    kept = np.empty(len(rows.thread), np.bool_)
    for at in range(0, len(rows.thread), _PIECE):
        piece = rows.keep(slice(at, at + _PIECE))
        kept[at : at + _PIECE] = (np.arange(at, at + len(piece.thread)) <= last[piece.thread]) & (piece.kind >= 0)
    return _joined(rows, kept)


def _joined(rows: Rows, kept: Bools) -> Rows:
    """The rows that are `kept`, but for running, with the GIL and without it, that goes on: that is one row, within a
    step.
    """
    width, parts = _width(rows, kept), []
    for at in range(0, len(kept), _PIECE):
        # With the row before these and the one after them.
        first = max(at - 1, 0)
        own, piece, told = at - first, rows.keep(slice(first, at + _PIECE + 1)), kept[first : at + _PIECE + 1]
        runs = told & (piece.kind == CPU)
        goes_on = runs[1:] & runs[:-1] & (piece.thread[1:] == piece.thread[:-1]) & (piece.start[1:] == piece.end[:-1])
        step = piece.start // width
        breaks = np.append(True, ~goes_on | (step[1:] != step[:-1]))
        begins = np.flatnonzero((told & breaks)[own : own + _PIECE]) + own
        ends = np.flatnonzero((told & np.append(breaks[1:], True))[own : own + _PIECE]) + own
        parts.append((piece.thread[begins], piece.start[begins], piece.end[ends], piece.kind[begins]))
    if not parts:
        return rows
    thread, start, end, kind = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Rows(thread.astype(np.int32), start, end, kind, rows.axis)


def _width(rows: Rows, kept: Bools) -> int:
    """How long a coarse step is."""
    span = int(rows.end.max(where=kept, initial=-NEVER)) - int(rows.start.min(where=kept, initial=NEVER))
    return max(span * (int(rows.thread.max(where=kept, initial=0)) + 1) // MOST_STEPS, 1)


def _bucket(rows: Rows) -> Ints:
    """The coarse step that each row begins in."""
    return rows.start // _width(rows, np.ones(1, np.bool_))


def steps_of(rows: Rows, awaiting: Bools, borders: Ints) -> Ints:
    """The number of each row's step: a delay and the CPU demand after it, or many of both if there are too many."""
    count = len(rows.thread)
    if count == 0:
        return np.empty(0, np.int64)
    border = np.zeros(count, np.bool_)
    border[1:] = rows.thread[1:] != rows.thread[:-1]
    border |= awaiting
    after = borders + 1
    border[after[after < count]] = True
    fine = border.copy()
    sleeps = (rows.kind == DELAY) | (rows.kind == HELD)
    fine[1:] |= sleeps[1:] & ~sleeps[:-1]
    if int(fine.sum()) > MOST_STEPS:
        fine, bucket = border, _bucket(rows)
        fine[1:] |= bucket[1:] != bucket[:-1]
    fine[0] = False
    return np.cumsum(fine)


def last_row(rows: Rows, thread: npt.NDArray[Any], time: Ints) -> Ints:
    """The last row of each thread that ended by that time, -1 if none did."""
    if len(rows.thread) == 0 or len(thread) == 0:
        return np.full(len(thread), -1, np.int64)
    at = np.searchsorted(rows.reach, rows.axis.place(thread, time), "right") - 1
    return np.where((at >= 0) & (rows.thread[np.maximum(at, 0)] == thread), at, -1)


def cut_rows(rows: Rows, thread: Ints, time: Ints) -> Rows:
    """Cut the rows of threads at instants, so that each instant in a row becomes the end of one."""
    if len(rows.thread) == 0 or len(thread) == 0:
        return rows
    place = rows.axis.place(thread, time)
    order = np.argsort(place, kind="stable")
    place, time, thread = place[order], time[order], thread[order]
    row = np.searchsorted(rows.axis.place(rows.thread, rows.start), place, "right") - 1
    safe = np.maximum(row, 0)
    inside = (row >= 0) & (rows.thread[safe] == thread) & (rows.start[safe] < time) & (time < rows.end[safe])
    inside[1:] &= place[1:] != place[:-1]
    row, time = row[inside], time[inside]
    # A row that is cut comes twice (or more often) and is then shortened to its parts.
    cut = rows.keep(np.insert(np.arange(len(rows.thread)), row, row))
    at = row + 1 + np.arange(len(row))
    cut.start[at] = time
    cut.end[at - 1] = time
    return cut


def _from_states(process: Process) -> Rows:
    """Its states; waits are of no kind."""
    states = process.states
    axis = LifeAxis.of_threads(process.threads)
    return Rows(states["thread"], states["start"], states["end"], _KIND[states["state"]], axis)


def _from_holds(process: Process) -> Rows:
    """Holds are CPU demand; what lies between a thread's holds and waits is delay."""
    used = np.concatenate([process.holds[["start", "end", "thread"]], process.waits[["start", "end", "thread"]]])
    is_hold = np.arange(len(used)) < len(process.holds)
    order = np.lexsort((used["end"], used["start"], used["thread"]))
    used, is_hold = used[order], is_hold[order]
    thread = used["thread"].astype(np.int64)
    fresh = np.ones(len(used), np.bool_)
    fresh[1:] = thread[1:] != thread[:-1]
    born = np.array([t.start for t in process.threads], np.int64)
    before = np.where(fresh, born[thread], np.append(0, used["end"][:-1]))
    gap = used["start"] > before
    # The same thread may hold two GILs at once, one within the other: only what is new of a hold counts.
    start = np.maximum(used["start"], np.where(fresh, used["start"], before))
    whole = Rows(
        np.concatenate([thread[gap], thread[is_hold]]).astype(np.int32),
        np.concatenate([before[gap], start[is_hold]]),
        np.concatenate([used["start"][gap], np.maximum(used["end"], start)[is_hold]]),
        np.repeat(np.array([DELAY, CPU], np.int8), [int(gap.sum()), int(is_hold.sum())]),
        LifeAxis.of_threads(process.threads),
    )
    order = np.lexsort((whole.start, whole.thread))
    return whole.keep(order)

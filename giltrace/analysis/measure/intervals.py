"""Holds of one GIL as disjoint turns, and what of them falls into waits."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording.order import stable_order
from giltrace.timeline.axis import Ints, LifeAxis
from giltrace.timeline.model import Process
from giltrace.timeline.once import once

Numbers = npt.NDArray[np.int32]

#: So many instants are looked up at a time.
_PIECE = 1 << 19


class Turns(NamedTuple):
    """The holds of one GIL that took time: number of each `hold`, its `start` and `end`; disjoint and sorted."""

    hold: Ints
    start: Ints
    end: Ints


def disjoint(start: npt.NDArray[Any], end: npt.NDArray[Any]) -> tuple[Ints, Ints]:
    """Clip intervals that are sorted by start so that none overlaps an earlier one; some may become empty."""
    if len(start) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    reach = np.maximum.accumulate(end)
    first = np.array(start, np.int64)
    np.maximum(first[1:], reach[:-1], out=first[1:])
    return first, np.maximum(end, first).astype(np.int64, copy=False)


def covered(start: Ints, end: Ints, until: Ints) -> Ints:
    """How much (ns) of disjoint sorted intervals lies before each instant."""
    if len(start) == 0:
        return np.zeros(len(until), np.int64)
    spent = np.append(0, np.cumsum(end - start))
    at = np.searchsorted(start, until, "right") - 1
    inside = np.maximum(at, 0)
    return np.where(at >= 0, spent[inside] + np.minimum(until, end[inside]) - start[inside], 0)


def last_released(process: Process, axis: LifeAxis, thread: npt.NDArray[Any], time: npt.NDArray[Any]) -> Numbers:
    """The hold that each `thread` had given up last by `time` (both one per row); -1 where there is none."""
    return _last_hold(axis, _by_end(process), thread, time)


def last_acquired(process: Process, axis: LifeAxis, thread: npt.NDArray[Any], time: npt.NDArray[Any]) -> Numbers:
    """The hold that each `thread` had begun last by `time` (both one per row); -1 where there is none."""
    return _last_hold(axis, _by_start(process), thread, time)


class _Placed(NamedTuple):
    """The holds in order of thread and time: number of each `hold`, and the `place` of one of its edges on the axis."""

    hold: npt.NDArray[np.int32]
    place: Ints


@once
def _by_end(process: Process) -> _Placed:
    return _placed(process, process.holds["end"])


@once
def _by_start(process: Process) -> _Placed:
    return _placed(process, process.holds["start"])


def _placed(process: Process, edge: npt.NDArray[Any]) -> _Placed:
    thread = process.holds["thread"]
    place = LifeAxis.of_threads(process.threads).place(thread, edge)
    # By thread they are in order already, or nearly, which takes no time to find: each thread's come one by one.
    order = stable_order(thread, len(process.threads))
    place = place[order]
    again = np.argsort(place, kind="stable")
    return _Placed(order[again].astype(np.int32), place[again])


def _last_hold(axis: LifeAxis, placed: _Placed, thread: npt.NDArray[Any], time: npt.NDArray[Any]) -> Numbers:
    found = np.empty(len(time), np.int32)
    for first in range(0, len(time), _PIECE):
        own = slice(first, first + _PIECE)
        at = np.searchsorted(placed.place, axis.place(thread[own], time[own]), "right") - 1
        # What lies before the thread's part of the axis is another one's.
        its = (at >= 0) & (placed.place[at] >= axis.base[thread[own]])
        found[own] = np.where(its, placed.hold[at], -1)
    return found


@once
def turns(process: Process, gil: int) -> Turns:
    """The turns of one GIL. Where a damaged recording has two holders at once, the earlier one counts."""
    hold = np.flatnonzero(process.holds["gil"] == gil)
    start, end = disjoint(process.holds["start"][hold], process.holds["end"][hold])
    kept = end > start
    return Turns(hold, start, end) if kept.all() else Turns(hold[kept], start[kept], end[kept])


def hold_at(process: Process, gil: npt.NDArray[Any], time: Ints) -> Ints:
    """Which hold of GIL `gil` was under way at each `time` (both one per row); -1 for none."""
    found = np.full(len(time), -1, np.int64)
    holds = process.holds
    for one in range(process.gils):
        own = np.flatnonzero(holds["gil"] == one)
        rows = np.flatnonzero(gil == one)
        if len(own) == 0 or len(rows) == 0:
            continue
        at = np.searchsorted(holds["start"][own], time[rows], "right") - 1
        hold = own[np.maximum(at, 0)]
        found[rows] = np.where((at >= 0) & (time[rows] < holds["end"][hold]), hold, -1)
    return found


def requested_holds(process: Process) -> Ints:
    """The hold that each switch request was made to, -1 where nobody held the GIL."""
    return hold_at(process, process.switch_requests["gil"], process.switch_requests["time"])

"""What the holder of the GIL was doing while others waited for it, or that nobody held it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.analysis.measure.intervals import Turns, covered, disjoint, last_acquired, turns
from giltrace.timeline.axis import Bools, Ints, LifeAxis, union
from giltrace.timeline.cut import reaching
from giltrace.timeline.model import WAIT, Array, Process, State
from giltrace.timeline.once import once

#: The eval loop heeds a switch request within microseconds: a hold that goes on for longer is in C code.
UNHEEDED_NS = 1_000_000

# Bits of a stretch of a GIL's time, and the cause (column) for each combination of them.
_HELD, _IN_C, _CORELESS, _BLOCKED = 1, 2, 4, 8
_PYTHON, _C, _NO_CORE, ASLEEP, _FREE = range(5)
_CAUSE = np.full(16, _FREE)
_CAUSE[[_HELD, _HELD | _IN_C]] = _PYTHON, _C
_CAUSE[[_HELD | _CORELESS, _HELD | _CORELESS | _IN_C]] = _NO_CORE
_CAUSE[[_HELD | _BLOCKED, _HELD | _BLOCKED | _IN_C]] = ASLEEP


@once
def wait_causes(process: Process) -> Ints:
    """Time by cause of each wait, shape (waits, 5); rows add up to the waits.

    The columns: the holder ran Python, it was in C past a switch request, it could have gone on but had no core, it was
    blocked in the kernel with the GIL, nobody held the GIL. Without scheduling data no holder is known to be off its
    core, and its time counts as Python or C.
    """
    causes = np.zeros((len(process.waits), 5), np.int64)
    off_core = _off_core(process)
    for gil in range(process.gils):
        mine = np.flatnonzero(process.waits["gil"] == gil)
        if len(mine):
            waits = process.waits[mine]
            causes[mine] = _causes(process, gil, waits, off_core)
    return causes


def competed_ns(process: Process, at_least: int = 0, chosen: Bools | None = None) -> int:
    """How long at least one thread waited while another one ran with the GIL; of several GILs, of the worst.

    Only waits of `at_least` ns count, and of these the `chosen` ones (one bool per wait). Left out are wake-up latency
    and time in which the holder had no core or was blocked: nobody competed then.
    """
    return _contended_ns(process, (_PYTHON, _C), at_least, chosen)


def kept_ns(process: Process, chosen: Bools | None = None) -> int:
    """The same, also while the holder was blocked in the kernel with the GIL: another thread could have had it."""
    return _contended_ns(process, (_PYTHON, _C, ASLEEP), 0, chosen)


def slept_ns(process: Process) -> int:
    """The same, only while the holder was blocked in the kernel with the GIL."""
    return _contended_ns(process, (ASLEEP,), 0, None)


def _contended_ns(process: Process, causes: tuple[int, ...], at_least: int, chosen: Bools | None) -> int:
    """How long at least one thread waited for one of these causes; see `competed_ns`."""
    off_core = _off_core(process)
    worst = 0
    for gil in range(process.gils):
        of_gil = process.waits["gil"] == gil
        mine = process.waits[of_gil if chosen is None else of_gil & chosen]
        mine = mine[mine["end"] - mine["start"] >= at_least]
        start, end = union(mine["start"], mine["end"])
        waits = np.empty(len(start), WAIT)
        waits["start"], waits["end"] = start, end
        worst = max(worst, int(_causes(process, gil, waits, off_core)[:, causes].sum()))
    return worst


def _causes(process: Process, gil: int, waits: Array, off_core: _OffCore) -> Ints:
    mine = turns(process, gil)
    idle = off_core.of_gil(gil)
    c_start, c_end = _in_c(process, gil, mine, idle.start, idle.end)
    layers = (
        (mine.start, mine.end, _HELD),
        (c_start, c_end, _IN_C),
        (idle.start[~idle.asleep], idle.end[~idle.asleep], _CORELESS),
        (idle.start[idle.asleep], idle.end[idle.asleep], _BLOCKED),
    )
    # Of millions of holds few are waited for, it may be.
    waited = np.stack(union(waits["start"], waits["end"]), axis=1)
    near = (reaching(start, end, waited) for start, end, _ in layers)
    time, cause = _stretches(
        *((start[some], end[some], what) for (start, end, what), some in zip(layers, near, strict=True))
    )
    result = np.zeros((len(waits), 5), np.int64)
    total = waits["end"] - waits["start"]
    if len(time):
        first = np.searchsorted(time, waits["start"], "right") - 1
        last = np.searchsorted(time, waits["end"], "right") - 1
        for column in (_PYTHON, _C, _NO_CORE, ASLEEP):
            here = cause == column
            if here.any():
                spent = np.append(0, np.cumsum(np.where(here[:-1], np.diff(time), 0)))
                result[:, column] = _until(time, here, spent, waits["end"], last) - _until(
                    time, here, spent, waits["start"], first
                )
    result[:, _FREE] = total - result.sum(axis=1)
    return result


def _until(time: Ints, here: np.ndarray[tuple[int], np.dtype[np.bool_]], spent: Ints, instant: Ints, at: Ints) -> Ints:
    """How much of the time up to each instant was of one cause; `at` is the stretch that the instant is in."""
    inside = np.maximum(at, 0)
    result: Ints = np.where(at >= 0, spent[inside] + np.where(here[inside], instant - time[inside], 0), 0)
    return result


def _stretches(*layers: tuple[Ints, Ints, int]) -> tuple[Ints, Ints]:
    """Cut time where any layer changes: starts of the stretches and their causes; the last one is free.

    The intervals within one layer are disjoint and sorted.
    """
    held_start, held_end, _ = layers[0]
    if all(len(start) == 0 for start, _, _ in layers[1:]):
        # Holds alone are in order already: nothing to sort.
        time = np.empty(2 * len(held_start), np.int64)
        time[0::2], time[1::2] = held_start, held_end
        return time, np.tile(np.array([_PYTHON, _FREE]), len(held_start))
    time = np.concatenate([edge for start, end, _ in layers for edge in (start, end)])
    change = np.concatenate([np.repeat([bit, -bit], len(start)) for start, _, bit in layers])
    order = np.argsort(time, kind="stable")
    time, bits = time[order], np.cumsum(change[order])
    last = np.append(time[1:] != time[:-1], True)
    return time[last], _CAUSE[bits[last]]


def _in_c(process: Process, gil: int, mine: Turns, off_start: Ints, off_end: Ints) -> tuple[Ints, Ints]:
    """Stretches from the first switch request that a hold did not heed to its end."""
    asked = process.switch_requests["time"][process.switch_requests["gil"] == gil]
    nothing = np.empty(0, np.int64)
    if len(asked) == 0 or len(mine.start) == 0:
        return nothing, nothing
    first = asked[np.minimum(np.searchsorted(asked, mine.start, "right"), len(asked) - 1)]
    over = (first > mine.start) & (mine.end - first > UNHEEDED_NS)
    start, end = first[over], mine.end[over]
    busy = end - start - (covered(off_start, off_end, end) - covered(off_start, off_end, start))
    return start[busy > UNHEEDED_NS], end[busy > UNHEEDED_NS]


class _OffCore(NamedTuple):
    """When a holder of `gil` had no core, or was `asleep`: blocked in the kernel. Sorted by start, disjoint per GIL."""

    start: Ints
    end: Ints
    gil: Ints
    asleep: Bools

    def of_gil(self, gil: int) -> _OffCore:
        """Those of one GIL."""
        mine = self.gil == gil
        return _OffCore(self.start[mine], self.end[mine], self.gil[mine], self.asleep[mine])


@once
def _off_core(process: Process) -> _OffCore:
    state = process.states["state"]
    rows = process.states.take(np.flatnonzero((state == State.HOLDING_RUNNABLE) | (state == State.HOLDING_BLOCKED)))
    nothing = np.empty(0, np.int64)
    if len(rows) == 0 or len(process.holds) == 0:
        return _OffCore(nothing, nothing, nothing, np.empty(0, np.bool_))
    hold = last_acquired(process, LifeAxis.of_threads(process.threads), rows["thread"], rows["start"])
    held = process.holds["gil"][hold].astype(np.int64)
    order = np.lexsort((rows["start"], held))
    rows, held = rows.take(order), held[order]
    parts = []
    for gil in range(process.gils):
        mine = rows[held == gil]
        if len(mine):
            start, end = disjoint(mine["start"], mine["end"])
            parts.append((start, end, np.full(len(start), gil, np.int64), mine["state"] == State.HOLDING_BLOCKED))
    return _OffCore(*(np.concatenate(column) for column in zip(*parts, strict=True)))

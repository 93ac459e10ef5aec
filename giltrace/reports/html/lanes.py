"""The lanes of the page: who held each GIL and what each thread did, thinned to what a page can carry.

A lane tiles the recording: `ends` in ticks of the page's resolution, and for each stretch a value, a stack, and what a
wait was lost to. Where a recording has more stretches than `BUDGET`, the resolution is made coarser: a tick then shows
what went on at its first instant, so that shares stay right on average however short the stretches are.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.stretches import Stretches, stretches
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Array, Process, State

#: So many stretches, all lanes taken together: 4 to 7 bytes each in the page, which has 2 to 3 MB then.
BUDGET = 400_000
#: The finest resolution in ns.
FINEST = 100
#: Values of thread lanes beside the seven states: off the GIL without scheduling data, and not alive.
OFF = 7
#: Blocked in a lock: for cause c of a block, this + c * `PER_GIL` (`blocks.Blocks`).
IN_LOCK = 8
NOTHING = 15
#: A wait for GIL g has the value `State.WAITING` + g * `PER_GIL`.
PER_GIL = 16
#: Value of a GIL lane where nobody held it, or a thread that has no lane.
FREE = 0xFFFF

Values = npt.NDArray[np.uint16]
Numbers = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Lane:
    """Stretches that tile the recording, in ns from its start.

    int64 `ends`, ascending, and for each stretch a uint16 `value`, an int32 `stack` of the process, -1 for none, and a
    uint16 `mix` of causes (`mixes.Mixes`), 0 for none. No two neighbours are alike.
    """

    ends: Ints
    value: Values
    stack: Numbers
    mix: Values

    @property
    def lengths(self) -> Ints:
        """Length of each stretch in ns."""
        result: Ints = np.diff(self.ends, prepend=0)
        return result

    @cached_property
    def kinds(self) -> Ints:
        """One number for what a stretch shows: 16 bits of mix, 31 of stack and 1, 16 of value."""
        kinds: Ints = (self.mix.astype(np.int64) << 31 | self.stack + np.int64(1)) << 16 | self.value
        return kinds


class Lanes:
    """Makes the lanes of one process from `start` to `end` (ns); `mix` is what each wait was lost to, if it is told."""

    def __init__(self, process: Process, start: int, end: int, mix: Values | None = None) -> None:
        self._process, self._start, self._end = process, start, end
        self._mix = np.zeros(len(process.waits), np.uint16) if mix is None else mix
        sites = Sites(process)
        self._hold_stack, self._wait_stack = sites.hold_stacks(), sites.wait_stacks()

    @cached_property
    def _held(self) -> Stretches:
        return stretches(self._process)

    def gil(self, gil: int, lane_of: Ints) -> Lane:
        """Return who held one GIL, and at which lines; `lane_of` maps a thread to the value that stands for it."""
        mine = self._held.holds["gil"] == gil
        holds: Array = self._held.holds[mine]
        value = lane_of[holds["thread"]]
        of_none = np.zeros(len(holds), np.uint16)
        whole = (self._start, self._end)
        return _tiled(holds["start"], holds["end"], (value, self._held.stack[mine], of_none), FREE, whole)

    def threads(self, threads: list[int]) -> list[Lane]:
        """Return what each of `threads` (indices) did; values are `State` (see `PER_GIL`), `OFF` or `NOTHING`."""
        process = self._process
        if not (process.has_sched and len(process.states)):
            return [self._known_by_gil(thread) for thread in threads]
        first = np.searchsorted(process.states["thread"], np.arange(len(process.threads) + 1))
        return [self._states(thread, process.states[first[thread] : first[thread + 1]]) for thread in threads]

    def _states(self, thread: int, states: Array) -> Lane:
        value, stack = states["state"].astype(np.uint16), np.full(len(states), -1, np.int32)
        mix = np.zeros(len(states), np.uint16)
        held, waited = value <= int(State.HOLDING_BLOCKED), value == int(State.WAITING)
        for rows, known, those in (
            (self._process.holds, self._hold_stack, held),
            (self._process.waits, self._wait_stack, waited),
        ):
            own = np.flatnonzero(rows["thread"] == thread)
            if len(own) == 0:
                continue
            found = own[np.maximum(np.searchsorted(rows["start"][own], states["start"][those], "right") - 1, 0)]
            stack[those] = known[found]
            if those is waited:
                value[those] += PER_GIL * rows["gil"][found]
                mix[those] = self._mix[found]
        return _tiled(states["start"], states["end"], (value, stack, mix), NOTHING, (self._start, self._end))

    def _known_by_gil(self, thread: int) -> Lane:
        holds, waits = (np.flatnonzero(rows["thread"] == thread) for rows in (self._process.holds, self._process.waits))
        held, waited = self._process.holds[holds], self._process.waits[waits]
        begin = np.concatenate([held["start"], waited["start"]])
        order = np.argsort(begin, kind="stable")
        finish = np.concatenate([held["end"], waited["end"]])[order]
        holding = np.full(len(held), int(State.HOLDING_RUNNING), np.int64)
        value = np.concatenate([holding, int(State.WAITING) + PER_GIL * waited["gil"].astype(np.int64)])[order]
        stack = np.concatenate([self._hold_stack[holds], self._wait_stack[waits]])[order]
        mix = np.concatenate([np.zeros(len(held), np.uint16), self._mix[waits]])[order]
        life = self._process.threads[thread]
        inner = _tiled(begin[order], finish, (value, stack, mix), OFF, (life.start, life.end))
        start = life.start + np.append(0, inner.ends[:-1])
        whole = (self._start, self._end)
        return _tiled(start, life.start + inner.ends, (inner.value, inner.stack, inner.mix), NOTHING, whole)


def _tiled(
    begin: npt.NDArray[Any],
    finish: npt.NDArray[Any],
    shown: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]],
    gap: int,
    whole: tuple[int, int],
) -> Lane:
    """Fill the gaps between sorted stretches; `shown` are their values, stacks and mixes.

    Where two overlap, the later one has the rest.
    """
    start, end = whole
    edges = np.empty(2 * len(begin) + 1, np.int64)
    edges[0:-1:2] = begin
    edges[1:-1:2] = np.minimum(finish, np.append(begin[1:], end)) if len(begin) else finish
    edges[-1] = end
    value, stack = np.full(len(edges), gap, np.uint16), np.full(len(edges), -1, np.int32)
    mix = np.zeros(len(edges), np.uint16)
    value[1::2], stack[1::2], mix[1::2] = shown
    return merged(Lane(np.clip(edges, start, end) - start, value, stack, mix))


def merged(lane: Lane) -> Lane:
    """Drop what is empty and join neighbours that show the same."""
    kept = np.flatnonzero(np.diff(lane.ends, prepend=0) > 0)
    kinds = lane.kinds[kept]
    kept = kept[np.append(kinds[1:] != kinds[:-1], np.ones(min(len(kinds), 1), np.bool_))]
    return Lane(lane.ends[kept], lane.value[kept], lane.stack[kept], lane.mix[kept])


def resolution(lanes: list[Lane], budget: int = BUDGET) -> int:
    """Return the finest tick (ns) with which all lanes have at most `budget` stretches.

    Ticks are `FINEST` times a power of two. Doubling one drops every other instant that is looked at, so that the
    number of stretches never grows with the tick.
    """
    total = int(max((lane.ends[-1] for lane in lanes if len(lane.ends)), default=0))
    # The ends are sent as 32-bit numbers.
    low = max((total // FINEST).bit_length() - 31, 0)
    high = max((total // FINEST).bit_length(), low)
    fine = [-(-lane.ends // FINEST) for lane in lanes]

    def fits(exponent: int) -> bool:
        return sum(_count(ends, lane.kinds, exponent) for ends, lane in zip(fine, lanes, strict=True)) <= budget

    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return FINEST << low


def _count(ends: Ints, kinds: Ints, exponent: int) -> int:
    """How many stretches are left if `ends` are rounded up to multiples of 2**exponent."""
    coarse = (ends + ((1 << exponent) - 1)) >> exponent
    seen = kinds[np.diff(coarse, prepend=0) > 0]
    return int(np.count_nonzero(seen[1:] != seen[:-1])) + min(len(seen), 1)


def thinned(lane: Lane, tick: int) -> Lane:
    """Return a lane as it looks at a resolution: its `ends` in ticks."""
    return merged(replace(lane, ends=-(-lane.ends // tick)))


def packed(thin: Lane, numbers: Ints) -> dict[str, Any]:
    """Return a thinned lane for the page: how many stretches, and their columns, deflated and in base64.

    The columns are little-endian: the lengths in ticks (uint32), the values (uint16), the numbers of the stacks in the
    page (uint16), which `numbers` has for each stack and for none, in this order, and the mixes (uint16).
    """
    small = (thin.value, numbers[thin.stack], thin.mix)
    columns = (thin.lengths.astype("<u4"), *(column.astype("<u2") for column in small))
    squeezed = zlib.compress(b"".join(column.tobytes() for column in columns))
    return {"count": len(thin.ends), "columns": base64.b64encode(squeezed).decode()}

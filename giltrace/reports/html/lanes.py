"""The lanes of the page: who held each GIL and what each thread did, thinned to what a page can carry.

A lane tiles the recording: `ends` in ticks of the page's resolution, and a value and a stack for each stretch. Where a
recording has more stretches than `BUDGET`, the resolution is made coarser: a tick then shows what went on at its first
instant, so that shares stay right on average however short the stretches are.
"""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.sites import Sites
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Array, Process, State

#: So many stretches, all lanes taken together: about 4 bytes each in the page, which has 3 to 4 MB then.
BUDGET = 800_000
#: The finest resolution in ns.
FINEST = 100
#: Values of thread lanes beside the seven states: off the GIL without scheduling data, and not alive.
OFF = 7
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

    int64 `ends`, ascending, and for each stretch a uint16 `value` and an int32 `stack` of the process, -1 for none.
    """

    ends: Ints
    value: Values
    stack: Numbers

    @property
    def lengths(self) -> Ints:
        """Length of each stretch in ns."""
        result: Ints = np.diff(self.ends, prepend=0)
        return result


class Lanes:
    """Makes the lanes of one process from `start` to `end` (ns)."""

    def __init__(self, process: Process, start: int, end: int) -> None:
        self._process, self._start, self._end = process, start, end
        sites = Sites(process)
        self._hold_stack, self._wait_stack = sites.hold_stacks(), sites.wait_stacks()

    def gil(self, gil: int, lane_of: Ints) -> Lane:
        """Return who held one GIL; `lane_of` maps a thread to the value that stands for it."""
        mine = self._process.holds["gil"] == gil
        holds: Array = self._process.holds[mine]
        value = lane_of[holds["thread"]]
        return _tiled(holds["start"], holds["end"], value, self._hold_stack[mine], FREE, (self._start, self._end))

    def threads(self, threads: list[int]) -> list[Lane]:
        """Return what each of `threads` (indices) did; values are `State` (see `PER_GIL`), `OFF` or `NOTHING`."""
        process = self._process
        if not (process.has_sched and len(process.states)):
            return [self._known_by_gil(thread) for thread in threads]
        first = np.searchsorted(process.states["thread"], np.arange(len(process.threads) + 1))
        return [self._states(thread, process.states[first[thread] : first[thread + 1]]) for thread in threads]

    def _states(self, thread: int, states: Array) -> Lane:
        value, stack = states["state"].astype(np.uint16), np.full(len(states), -1, np.int32)
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
        return _tiled(states["start"], states["end"], value, stack, NOTHING, (self._start, self._end))

    def _known_by_gil(self, thread: int) -> Lane:
        holds, waits = (np.flatnonzero(rows["thread"] == thread) for rows in (self._process.holds, self._process.waits))
        held, waited = self._process.holds[holds], self._process.waits[waits]
        begin = np.concatenate([held["start"], waited["start"]])
        order = np.argsort(begin, kind="stable")
        finish = np.concatenate([held["end"], waited["end"]])[order]
        holding = np.full(len(held), int(State.HOLDING_RUNNING), np.int64)
        value = np.concatenate([holding, int(State.WAITING) + PER_GIL * waited["gil"].astype(np.int64)])[order]
        stack = np.concatenate([self._hold_stack[holds], self._wait_stack[waits]])[order]
        life = self._process.threads[thread]
        inner = _tiled(begin[order], finish, value, stack, OFF, (life.start, life.end))
        start = life.start + np.append(0, inner.ends[:-1])
        whole = (self._start, self._end)
        return _tiled(start, life.start + inner.ends, inner.value, inner.stack, NOTHING, whole)


def _tiled(
    begin: npt.NDArray[Any],
    finish: npt.NDArray[Any],
    value: npt.NDArray[Any],
    stack: npt.NDArray[Any],
    gap: int,
    whole: tuple[int, int],
) -> Lane:
    """Fill the gaps between sorted stretches; where two overlap, the later one has the rest."""
    start, end = whole
    edges = np.empty(2 * len(begin) + 1, np.int64)
    edges[0:-1:2] = begin
    edges[1:-1:2] = np.minimum(finish, np.append(begin[1:], end)) if len(begin) else finish
    edges[-1] = end
    values, stacks = np.full(len(edges), gap, np.uint16), np.full(len(edges), -1, np.int32)
    values[1::2], stacks[1::2] = value, stack
    ends = np.clip(edges, start, end) - start
    return _merged(ends, values, stacks, np.diff(ends, prepend=0))


def _merged(ends: Ints, value: Values, stack: Numbers, length: Ints) -> Lane:
    """Drop what is empty and join equal neighbours: the longest of them, by `length`, gives the stack."""
    kept = np.diff(ends, prepend=0) > 0
    ends, value, stack, length = ends[kept], value[kept], stack[kept], length[kept]
    last = np.append(value[1:] != value[:-1], np.ones(min(len(value), 1), np.bool_))
    if last.all():
        return Lane(ends, value, stack)
    group = np.cumsum(last) - last
    first = np.flatnonzero(np.append(True, last[:-1]))
    longest = np.flatnonzero(length == np.maximum.reduceat(length, first)[group])
    chosen = np.empty(len(first), np.int64)
    # Of several equally long ones the first counts: it is assigned last.
    chosen[group[longest[::-1]]] = longest[::-1]
    return Lane(ends[last], value[last], stack[chosen])


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
        return sum(_count(ends, lane.value, exponent) for ends, lane in zip(fine, lanes, strict=True)) <= budget

    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return FINEST << low


def _count(ends: Ints, value: Values, exponent: int) -> int:
    """How many stretches are left if `ends` are rounded up to multiples of 2**exponent."""
    coarse = (ends + ((1 << exponent) - 1)) >> exponent
    seen = value[np.diff(coarse, prepend=0) > 0]
    return int(np.count_nonzero(seen[1:] != seen[:-1])) + min(len(seen), 1)


def thinned(lane: Lane, tick: int) -> Lane:
    """Return a lane as it looks at a resolution: its `ends` in ticks."""
    return _merged(-(-lane.ends // tick), lane.value, lane.stack, lane.lengths)


def packed(thin: Lane, numbers: Ints) -> dict[str, Any]:
    """Return a thinned lane for the page: how many stretches, and their columns, deflated and in base64.

    The columns are little-endian: the lengths in ticks (uint32), the values (uint16), and the numbers of the stacks in
    the page (uint16), which `numbers` has for each stack and for none, in this order.
    """
    columns = (thin.lengths.astype("<u4"), thin.value.astype("<u2"), numbers[thin.stack].astype("<u2"))
    squeezed = zlib.compress(b"".join(column.tobytes() for column in columns))
    return {"count": len(thin.ends), "columns": base64.b64encode(squeezed).decode()}

"""The lanes of the page: who held each GIL and what each thread did, thinned to what a page can carry.

A lane tiles the recording: `ends` in ticks of the page's resolution and a value for each stretch. Where a recording has
more stretches than `BUDGET`, the resolution is made coarser: a tick then shows what went on at its first instant, so
that shares stay right on average however short the stretches are.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Array, Process, State

#: So many stretches, all lanes taken together: about 7 bytes each in the page.
BUDGET = 200_000
#: The finest resolution in ns.
FINEST = 100
#: Values of thread lanes beside the seven states: off the GIL without scheduling data, and not alive.
OFF = 7
NOTHING = 255
#: Value of a GIL lane where nobody held it, or a thread that has no lane.
FREE = 0xFFFF


@dataclass(frozen=True)
class Lane:
    """Stretches that tile the recording, in ns from its start: int64 `ends`, ascending, and a `value` for each."""

    ends: Ints
    value: npt.NDArray[np.uint16]

    @property
    def lengths(self) -> Ints:
        """Length of each stretch in ns."""
        result: Ints = np.diff(self.ends, prepend=0)
        return result


def thread_lanes(process: Process, threads: list[int], start: int, end: int) -> list[Lane]:
    """Return what each of `threads` (indices) did from `start` to `end`; values are `State`, `OFF` or `NOTHING`."""
    if process.has_sched and len(process.states):
        rows, owner = process.states, process.states["thread"]
        first = np.searchsorted(owner, np.arange(len(process.threads) + 1))
        return [
            _tiled(part["start"], part["end"], part["state"], NOTHING, start, end)
            for part in (rows[first[at] : first[at + 1]] for at in threads)
        ]
    return [_known_by_gil(process, at, start, end) for at in threads]


def _known_by_gil(process: Process, thread: int, start: int, end: int) -> Lane:
    holds, waits = (rows[rows["thread"] == thread] for rows in (process.holds, process.waits))
    begin = np.concatenate([holds["start"], waits["start"]])
    order = np.argsort(begin, kind="stable")
    finish = np.concatenate([holds["end"], waits["end"]])[order]
    kind = np.repeat([int(State.HOLDING_RUNNING), int(State.WAITING)], [len(holds), len(waits)])[order]
    life = process.threads[thread]
    inner = _tiled(begin[order], finish, kind, OFF, life.start, life.end)
    return _tiled(life.start + np.append(0, inner.ends[:-1]), life.start + inner.ends, inner.value, NOTHING, start, end)


def gil_lane(process: Process, gil: int, lane_of: Ints, start: int, end: int) -> Lane:
    """Return who held one GIL from `start` to `end`; `lane_of` maps a thread to the value that stands for it."""
    holds: Array = process.holds[process.holds["gil"] == gil]
    return _tiled(holds["start"], holds["end"], lane_of[holds["thread"]], FREE, start, end)


def _tiled(
    begin: npt.NDArray[Any], finish: npt.NDArray[Any], value: npt.NDArray[Any], gap: int, start: int, end: int
) -> Lane:
    """Fill the gaps between sorted stretches; where two overlap, the later one has the rest."""
    edges = np.empty(2 * len(begin) + 1, np.int64)
    edges[0:-1:2] = begin
    edges[1:-1:2] = np.minimum(finish, np.append(begin[1:], end)) if len(begin) else finish
    edges[-1] = end
    values = np.full(len(edges), gap, np.uint16)
    values[1::2] = value
    return _merged(np.clip(edges, start, end) - start, values)


def _merged(ends: Ints, value: npt.NDArray[np.uint16]) -> Lane:
    """Drop what is empty and join equal neighbours."""
    kept = np.diff(ends, prepend=0) > 0
    ends, value = ends[kept], value[kept]
    last = np.append(value[1:] != value[:-1], np.ones(min(len(value), 1), np.bool_))
    return Lane(ends[last], value[last])


def resolution(lanes: list[Lane], budget: int = BUDGET) -> int:
    """Return the ns per tick with which the lanes have about `budget` stretches at most."""
    # What is left of a stretch shorter than a tick is, on average, its share of a tick.
    lengths = np.concatenate([lane.lengths for lane in lanes] or [np.empty(0, np.int64)])
    every = max(len(lengths) // 500_000, 1)
    sample = lengths[::every].astype(np.float64)
    tick = max(FINEST, int(max((lane.ends[-1] for lane in lanes if len(lane.ends)), default=0)) >> 31)
    while np.minimum(sample / tick, 1.0).sum() * every > budget:
        tick *= 2
    return tick


def packed(lane: Lane, tick: int) -> dict[str, str]:
    """Return a lane for the page: base64 of little-endian uint32 `ends` in ticks, and of its uint16 `values`."""
    thin = _merged(-(-lane.ends // tick), lane.value)
    return {"ends": _base64(thin.ends.astype("<u4")), "values": _base64(thin.value.astype("<u2"))}


def _base64(array: npt.NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()

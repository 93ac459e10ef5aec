"""Small vectorised tools for intervals and for records grouped by thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from giltrace.timeline.model import Thread

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: With room for the bits that `timeline.states` needs.
_LONGEST = float(1 << 58)

#: So many instants are placed at a time: what is made meanwhile stays near the core.
_PIECE = 1 << 15

#: Later than any time in a recording, with room to add to it.
NEVER = np.int64(1 << 62)


class LifeAxis(NamedTuple):
    """The lifetimes of all threads laid end to end on one axis, so that one sort orders every thread's instants.

    Thread i occupies ``[base[i], base[i] + ends[i] - starts[i]]``; `starts` and `ends` are in ns.
    """

    starts: Ints
    ends: Ints
    base: Ints

    @staticmethod
    def fits(starts: Ints, ends: Ints) -> bool:
        """Whether threads that live from `starts` to `ends` can be laid out: all damage of times is not known."""
        return float((ends - starts + 1).sum(dtype=np.float64)) < _LONGEST

    @classmethod
    def of(cls, starts: Ints, ends: Ints) -> LifeAxis:
        """Lay out threads that live from `starts` to `ends`."""
        length = ends - starts + 1
        return cls(starts, ends, np.cumsum(length) - length)

    @classmethod
    def of_threads(cls, threads: Sequence[Thread]) -> LifeAxis:
        """Lay out the threads of a process."""
        starts, ends = (np.array([getattr(one, edge) for one in threads], np.int64) for edge in ("start", "end"))
        return cls.of(starts, ends)

    def place(self, thread: npt.NDArray[Any], time: npt.NDArray[Any]) -> Ints:
        """Positions on the axis of the instants `time` of `thread`, clipped to the thread's lifetime."""
        if len(self.starts) == 0:
            return np.empty(0, np.int64)
        shift, last, position = (
            self.base - self.starts,
            self.base + (self.ends - self.starts),
            np.empty(len(time), np.int64),
        )
        for at in range(0, len(time), _PIECE):
            # What indexes three times is made an index once.
            own, part = thread[at : at + _PIECE].astype(np.intp, copy=False), position[at : at + _PIECE]
            np.add(time[at : at + _PIECE], shift[own], out=part)
            np.maximum(part, self.base[own], out=part)
            np.minimum(part, last[own], out=part)
        return position


def concatenated_ranges(low: npt.NDArray[Any], high: npt.NDArray[Any]) -> Ints:
    """``[low[0], ..., high[0] - 1, low[1], ...]`` for ranges that are not reversed."""
    counts = high - low
    total = int(counts.sum())
    first = np.cumsum(counts) - counts
    ranges: Ints = np.arange(total, dtype=np.int64) + np.repeat(low - first, counts)
    return ranges


def ended(edges: Ints, instants: Ints) -> Ints:
    """How many of the sorted `edges` lie at each of the sorted `instants` or before it.

    The edges are looked up among the instants, and not these among the edges: of those there are fewer.
    """
    at = np.searchsorted(instants, edges)
    found: Ints = np.repeat(np.arange(len(edges) + 1), np.diff(at, prepend=0, append=len(instants)))
    return found


def ended_within(edges: Ints, low: Ints, high: Ints, instants: Ints) -> Ints:
    """The end of those of ``edges[low[i]:high[i]]``, sorted, that lie at ``instants[i]`` or before it.

    All are looked up at once, by halves.
    """
    while (open_ := low < high).any():
        middle = (low + high) // 2
        passed = open_ & (edges[np.minimum(middle, len(edges) - 1)] <= instants)
        low, high = np.where(passed, middle + 1, low), np.where(open_ & ~passed, middle, high)
    return low


def union(start: Ints, end: Ints) -> tuple[Ints, Ints]:
    """Starts and ends of what intervals cover that are sorted by start: disjoint, in order."""
    reach = np.maximum.accumulate(end)
    fresh = np.ones(len(start), np.bool_)
    fresh[1:] = start[1:] > reach[:-1]
    return start[fresh], reach[np.append(fresh[1:], True)[: len(start)]]


def union_length(start: Ints, end: Ints) -> int:
    """Total length covered by intervals that are sorted by start, overlaps counted once."""
    start, end = union(start, end)
    return int((end - start).sum())

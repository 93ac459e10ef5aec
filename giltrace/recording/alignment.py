"""Where on a recording's clock times of another clock lie: there, where a thread that read them had a core.

A thread that reads a clock runs. So of all distances between the two clocks, the true one puts every reading into a
stretch in which its thread ran.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]


class Readings(NamedTuple):
    """Times (ns) that a thread read on another clock; the begins and ends of when it ran, in order and disjoint."""

    times: Ints
    begins: Ints
    ends: Ints


class Fit(NamedTuple):
    """The distances from `low` to `high` (ns) put `covered` readings, or hardly fewer, where their threads ran."""

    low: int
    high: int
    covered: int


def best_fit(
    readings: Sequence[Readings], first: int, last: int, *, rounding: int = 0, forgiven: int = 0
) -> Fit | None:
    """Find the distances within [first, last] that put the most readings to where they belong; None if none does any.

    A time was cut by up to `rounding` ns. Distances that put up to `forgiven` fewer there are taken to be as good:
    where several are, the truth may be in any.
    """
    import numpy as np

    lows, highs = [], []
    for times, begins, ends in readings:
        for time in times.tolist():
            near = slice(np.searchsorted(ends, first + time), np.searchsorted(begins, last + time + rounding, "right"))
            lows.append(begins[near] - time - rounding)
            highs.append(ends[near] - time)
    if not lows:
        return None
    low, high = np.maximum(np.concatenate(lows), first), np.minimum(np.concatenate(highs), last)
    low, high = low[low <= high], high[low <= high]
    if not len(low):
        return None
    at = np.concatenate([low, high])
    step = np.concatenate([np.ones(len(low), np.int64), np.full(len(high), -1)])
    order = np.lexsort((-step, at))
    at, covered = at[order], np.cumsum(step[order])
    most = int(covered.max())
    best = np.flatnonzero(covered >= most - forgiven)
    return Fit(int(at[best[0]]), int(at[min(int(best[-1]) + 1, len(at) - 1)]), most)

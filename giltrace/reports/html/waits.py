"""How long the waits of one process were, as the page draws it."""

from __future__ import annotations

from typing import Any

import numpy as np

from giltrace.analysis.measure import usage
from giltrace.timeline.model import Process

#: Bars per decade of the histogram, and the decades that it may have: 100 ns to 1000 s.
PER_DECADE = 5
FIRST_DECADE, LAST_DECADE = 2, 12

Json = dict[str, Any]


def histogram(process: Process) -> list[Json]:
    """Return bars from `low` to `high` (ns), equally wide on a log scale: how many waits, and their `ns` in all."""
    length = usage.lengths(process.waits[process.of_chosen(process.waits)])
    if not len(length):
        return []
    exponents = np.arange(FIRST_DECADE * PER_DECADE, LAST_DECADE * PER_DECADE + 1) / PER_DECADE
    edges = np.rint(10.0**exponents).astype(np.int64)
    last = len(edges) - 2
    bar = np.clip(np.searchsorted(edges, length, "right") - 1, 0, last)
    count = np.bincount(bar, minlength=last + 1)
    total = np.bincount(bar, weights=length, minlength=last + 1)
    used = np.flatnonzero(count)
    return [
        {"low": int(edges[at]), "high": int(edges[at + 1]), "waits": int(count[at]), "ns": int(total[at])}
        for at in range(int(used[0]), int(used[-1]) + 1)
    ]

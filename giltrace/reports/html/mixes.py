"""What each wait was lost to, as a page can carry it: a wait has a few equal parts, each of one cause."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from giltrace.analysis.findings.costs import Cause, Costed
from giltrace.analysis.measure import usage
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process

#: So many parts has a wait: fewer if there would be more mixes of them than a 16-bit number can tell apart.
PARTS = (20, 8, 1)
_MOST = 0xFFFF
# The golden ratio of 2**32: its multiples, as such, are spread evenly.
_GOLDEN = 0x9E3779B9


@dataclass(frozen=True)
class Mixes:
    """`of_wait` (uint16) is the mix of each wait, and mix m has ``told[m - 1][cause]`` parts of each `Cause`."""

    of_wait: npt.NDArray[np.uint16]
    told: list[list[int]]


def find_mixes(process: Process, figures: Costed | None = None) -> Mixes:
    """Find them for all waits of a process, by its `figures` where there are some."""
    if len(process.waits) == 0:
        return Mixes(np.empty(0, np.uint16), [])
    until = (
        np.cumsum((figures or Costed(process)).costs.ns, axis=1)
        / np.maximum(usage.lengths(process.waits), 1)[:, np.newaxis]
    )
    for parts in PARTS:
        rows = _parts(until, parts)
        # In one integer, as rows of several columns sort slowly: ten causes, 5 bits each.
        packed = rows @ (np.int64(1) << (5 * np.arange(len(Cause), dtype=np.int64)))
        _, first, mix = np.unique(packed, return_index=True, return_inverse=True)
        if len(first) < _MOST:
            break
    return Mixes((mix.ravel() + 1).astype(np.uint16), rows[first].tolist())


def _parts(until: npt.NDArray[np.float64], parts: int) -> Ints:
    """Deal the parts of each wait out to the causes, of which `until` has the running sums of shares.

    Where a cause has no whole number of them, some waits have one more and some one less, so that sums over many are
    right.
    """
    shift = (np.arange(len(until), dtype=np.int64) * _GOLDEN % (1 << 32) / (1 << 32))[:, np.newaxis]
    upto: Ints = np.floor(until * parts + shift).astype(np.int64)
    upto[:, 1:] -= upto[:, :-1].copy()
    return upto

"""Where threads were without the GIL: role, line, and what they did there."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.lock_results import Whereabouts
from giltrace.analysis.measure.activity import Activity, Doing
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.measure.sites import Sites
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process

#: What is told of: all but having the GIL and waiting for it.
_WITHOUT = (Doing.LOCK, Doing.ASLEEP, Doing.NATIVE, Doing.NO_CORE, Doing.OFF)


def explain(process: Process, sites: Sites, found: Activity, causes: Ints) -> tuple[Whereabouts, ...]:
    """Sort the time that the chosen threads were without the GIL by line and by what they did, the longest first.

    `causes` are those of the blocks (`BlockCause`). In a build without a GIL it is the time in which they did not run.
    """
    chosen = np.isin(found.doing, _WITHOUT)
    if process.chosen is not None:
        chosen &= process.chosen[found.thread]
    row = np.flatnonzero(chosen)
    if not len(row):
        return ()
    lines = Sites.own_lines(sites.classify(found.thread[row], found.stack[row]))
    doing = found.doing[row].astype(np.int64)
    cause = np.where(doing == Doing.LOCK, causes[found.block[row]] if len(causes) else 0, 0)
    key = (lines.of_row * len(Doing) + doing) * len(BlockCause) + cause
    kinds, number = np.unique(key, return_inverse=True)
    length = found.end[row] - found.start[row]
    total = np.bincount(number.ravel(), weights=length).astype(np.int64)
    told = []
    for at in np.argsort(-total, kind="stable").tolist():
        rest, because = divmod(int(kinds[at]), len(BlockCause))
        line, what = divmod(rest, len(Doing))
        told.append(
            Whereabouts(
                site=lines.sites[line],
                doing=Doing(what).label,
                cause=BlockCause(because).label if what == Doing.LOCK else "",
                ns=int(total[at]),
            )
        )
    return tuple(told)

"""Where threads were without the GIL: role, line, and what they did there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from giltrace.analysis.lock_results import Whereabouts
from giltrace.analysis.measure.activity import WITHOUT, Activity, by_line
from giltrace.analysis.measure.roles import python_threads
from giltrace.analysis.measure.sites import Sites
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process


def explain(
    process: Process, sites: Sites, found: Activity, causes: Ints, asleep: Callable[[Ints], Ints] | None = None
) -> tuple[Whereabouts, ...]:
    """Sort the time that the chosen threads were without the GIL by line and by what they did, the longest first.

    `causes` are those of the blocks (`BlockCause`); `asleep` tells the `AsleepCause` of stacks. In a build
    without a GIL it is the time in which they did not run.
    """
    chosen = np.isin(found.doing, WITHOUT) & python_threads(process)[found.thread]
    if process.chosen is not None:
        chosen &= process.chosen[found.thread]
    kinds = by_line(sites, found, causes, np.flatnonzero(chosen), asleep=asleep)
    return tuple(Whereabouts(**kind._asdict(), ns=ns) for kind, ns in kinds)

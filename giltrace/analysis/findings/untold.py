"""What the bound of a replay does not tell: waits for the GIL that the end did not hang on."""

from __future__ import annotations

from dataclasses import replace

from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.figures import QUIET_SHARE
from giltrace.analysis.measure.activity import Doing
from giltrace.analysis.results import WhatIf

#: Less than this the whole would hardly be faster, beside what runs differ by.
TELLING_BOUND = 1.1
#: The main thread slept for this share of the critical path: it served others, or waited for a time.
CLOCK_SHARE = 0.2


def with_untold(f: Costed, replayed: WhatIf) -> WhatIf:
    """The replay with what its bound does not tell.

    How long a program takes says little of how much it gets done where its end came from the clock, a signal or from
    outside: a server's, or that of a recording that it outlived. Nor does it where threads were late that nobody waits
    for at the end.
    """
    clock = _ended_by_clock(f)
    if f.contended_share <= QUIET_SHARE or replayed.cores < 2 or not (clock or replayed.speedup_bound < TELLING_BOUND):
        return replayed
    return replace(replayed, untold_ns=int(f.waited.sum()), by_clock=clock)


def _ended_by_clock(f: Costed) -> bool:
    if f.process.end_of != "process":
        return True
    asleep = (Doing.ASLEEP.label, Doing.LOCK.label)
    slept = sum(row.ns for row in f.on_path if row.site.thread == "MainThread" and row.doing in asleep)
    return slept >= CLOCK_SHARE * f.wall

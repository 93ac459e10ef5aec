"""Holds that outlive a switch request: code that keeps the GIL although another thread asked for it."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.measure import usage
from giltrace.analysis.measure.native_code import NativeCode, find_native_code
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.wait_causes import UNHEEDED_NS
from giltrace.analysis.results import Hog
from giltrace.timeline.model import Process

#: So many sites are told, the largest ones.
MOST_HOGS = 100


def find_hogs(process: Process) -> tuple[Hog, ...]:
    """Hogs by thread role and line, the most time over the request first.

    The eval loop heeds a request within microseconds, so that holds which go on for `UNHEEDED_NS` are in C code.
    """
    over = usage.overstays(process, UNHEEDED_NS)
    if len(over.hold) == 0:
        return ()
    sites = Sites(process)
    stack = sites.hold_stacks()[over.hold]
    holds = process.holds[over.hold]
    kinds = sites.classify(holds["thread"], stack)
    held = usage.lengths(holds)
    in_c = find_native_code(process, holds["thread"], over.asked, holds["end"], kinds.of_row)
    hogs = []
    for kind, site in enumerate(kinds.sites):
        mine = np.flatnonzero(kinds.of_row == kind)
        worst = mine[over.length[mine].argmax()]
        hogs.append(
            Hog(
                site=site,
                count=len(mine),
                ns=int(over.length[mine].sum()),
                max_ns=int(over.length[worst]),
                held_ns=int(held[mine].sum()),
                stack=sites.stack(int(stack[worst])),
                **in_c.get(kind, NativeCode())._asdict(),
            )
        )
    return tuple(sorted(hogs, key=lambda hog: -hog.ns)[:MOST_HOGS])

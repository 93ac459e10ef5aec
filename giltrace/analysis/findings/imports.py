"""Imports while other threads want the GIL: their code runs, is compiled and unmarshalled with it held."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.costs import Cause, Costed
from giltrace.text import plural

#: Imports decide the verdict if one thread waited for them for this share of the time that the threads had in all: as
#: hogs do.
IMPORT_SHARE = 0.05


def imports(f: Costed) -> Verdict | None:
    """Who waited for how long while another thread imported?"""
    lost = f.costs.ns[:, Cause.IMPORT]
    of_thread = np.bincount(f.process.waits["thread"], weights=lost, minlength=len(f.lives))
    if of_thread.max(initial=0) < IMPORT_SHARE * f.had:
        return None
    share = float(of_thread.max() / f.wall)
    most, waiters = int(of_thread.argmax()), int(np.count_nonzero(of_thread))
    others = f" ({plural(waiters, 'thread')} waited {duration(int(of_thread.sum()))} in all)" if waiters > 1 else ""
    return Verdict(
        "cpu-bound-contention",
        f"Imports: thread {f.name(most)!r} waited {duration(of_thread[most])} for the GIL, {percent(share)} of the "
        f"time, while other threads imported modules{others}: compiling and running a module's code keeps the GIL.",
        "Import before the threads start, or before the service takes requests; the report names the import. Where "
        "modules are compiled each time (no __pycache__ that can be written), compile them once: python -m compileall.",
        {"import_share": share, "waited_ns": int(of_thread.sum()), "longest_wait_ns": int(lost.max())},
    )

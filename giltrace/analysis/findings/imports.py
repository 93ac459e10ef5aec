"""Imports while other threads want the GIL: their code runs, is compiled and unmarshalled with it held."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.costs import Cause, Costed, Costs
from giltrace.analysis.measure.attribution import attribute
from giltrace.analysis.measure.modules import imported, packages
from giltrace.analysis.measure.stretches import cut_process, stretches
from giltrace.text import plural

#: Imports decide the verdict if one thread waited for them for this share of the time that the threads had in all: as
#: hogs do.
IMPORT_SHARE = 0.05
#: So many modules are named, and none to which less than this share was lost.
MOST_TOLD = 3
LEAST_SHARE = 0.05


def imports(f: Costed) -> Verdict | None:
    """Who waited for how long while another thread imported?"""
    lost = f.costs.ns[:, Cause.IMPORT]
    of_thread = np.bincount(f.process.waits["thread"], weights=lost, minlength=len(f.lives))
    if of_thread.max(initial=0) < IMPORT_SHARE * f.had:
        return None
    share = float(of_thread.max() / f.wall)
    most, waiters = int(of_thread.argmax()), int(np.count_nonzero(of_thread))
    named, ns = lost_modules(f, f.costs)
    most_of = "Most was lost to" if 2 * ns >= of_thread.sum() else "Of that,"
    modules = f" {most_of} {named}." if named else ""
    others = f" ({plural(waiters, 'thread')} waited {duration(int(of_thread.sum()))} in all)" if waiters > 1 else ""
    return Verdict(
        "cpu-bound-contention",
        f"Imports: thread {f.name(most)!r} waited {duration(of_thread[most])} for the GIL, {percent(share)} of the "
        f"time, while other threads imported modules{others}: compiling and running a module's code keeps the GIL."
        f"{modules}",
        "Import before the threads start, or before the service takes requests. Where "
        "modules are compiled each time (no __pycache__ that can be written), compile them once: python -m compileall.",
        {"import_share": share, "waited_ns": int(of_thread.sum()), "longest_wait_ns": int(lost.max())},
    )


def lost_modules(f: Costed, costs: Costs) -> tuple[str, int]:
    """The modules that most time was lost to: "sqlalchemy.orm (310 ms) and flask (42.0 ms)", and ns of all of these."""
    lost = costs.ns[:, Cause.IMPORT]
    if f.process.stacks is None or not lost.any():
        return "", 0
    module, names = imported(f.process.stacks.table)
    held = stretches(f.process)
    # A class for what was imported without a module's code on the stack, and one for all else.
    known = np.append(module, -1)[held.stack]
    shares = attribute(cut_process(f.process), np.arange(len(lost)), known + 1, lost > 0)
    mine = shares.culprit > 0
    wait, of, ns = shares.victim[mine], shares.culprit[mine] - 1, shares.ns[mine]
    whole = np.bincount(wait, weights=ns, minlength=len(lost))
    spent = packages(names, np.bincount(of, ns * (lost / np.maximum(whole, 1))[wait], len(names)))
    most = sorted(spent, key=lambda name: -spent[name])[:MOST_TOLD]
    most = [name for name in most if spent[name] > LEAST_SHARE * lost.sum()]
    told = [f"{name} ({duration(spent[name])})" for name in most]
    named = " and ".join([", ".join(told[:-1]), told[-1]] if len(told) > 1 else told)
    return named, sum(spent[name] for name in most)

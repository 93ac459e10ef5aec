"""Threads that run at once: native code off the GIL, or interpreters with a GIL each."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.durations import duration
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.figures import QUIET_SHARE, Figures
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.at_once import RUNNING, levels
from giltrace.timeline.model import State

#: Parallel: threads ran off the GIL for this many times the held time, so that it lets two get on nearly twice as fast
#: as one ...
RATIO = 0.8
#: ... for this share of the time that they had: less is no more than reads and writes of a program that waits ...
SHARE = 0.1
#: ... and two ran at once for this share of the time that any ran: less can be one thread's start and another's end.
OVERLAP = 0.1
#: With several GILs in use, so much of it: interpreters that start one after the other overlap a little.
GILS_OVERLAP = 0.2
#: So many cores are several: what is between 1 and this may be wake-ups beside one thread's work ...
SEVERAL_CORES = 1.2
#: ... unless cores were what was lacking: two could have run at once for half of the time.
LACKING_OVERLAP = 0.5
#: A process has all the cores that it may use if its threads ran on so much of them, on average.
ALL_CORES = 0.9

_CORELESS = (State.HOLDING_RUNNABLE, State.OFF_RUNNABLE)


def parallel(f: Figures) -> Verdict | None:
    """Does native code off the GIL run on several cores at once?"""
    off_share = f.off_running_ns / f.had
    ratio = f.off_running_ns / max(f.used_ns, 1)
    if not f.process.has_sched or ratio < RATIO or off_share < SHARE or f.overlap_share < OVERLAP:
        return None
    cores = _cores(f)
    if cores < SEVERAL_CORES and f.overlap_share < LACKING_OVERLAP:
        return None
    return Verdict(
        "parallel",
        f"Parallel: native code off the GIL {_had(f)}; threads ran off the GIL {ratio:.1f} times as long as they "
        "held it.",
        _advice(f, "threads"),
        {
            "gils_at_once_ratio": usage.gils_at_once([f.process]),
            "off_running_ratio": ratio,
            "off_running_share": off_share,
            "overlap_share": f.overlap_share,
            "cores_ratio": cores,
        },
    )


def interpreters(f: Figures) -> Verdict | None:
    """Are several GILs held at once?"""
    if not f.process.has_sched or f.gils < 2 or f.overlap_share < GILS_OVERLAP:
        return None
    at_once = usage.gils_at_once([f.process])
    return Verdict(
        "parallel",
        f"Parallel: {f.gils} GILs, {at_once:.1f} of them held at once on average, {_had(f)}.",
        _advice(f, "interpreters"),
        {"gils_at_once_ratio": at_once, "overlap_share": f.overlap_share, "cores_ratio": _cores(f)},
    )


def _cores(f: Figures) -> float:
    """How many cores threads had on average while any ran."""
    return f.running_ns / max(f.running.any_ns, 1)


def _lacked_cores(f: Figures) -> bool:
    """Whether it was cores that kept threads from running at once: else one did little beside another."""
    if _cores(f) < SEVERAL_CORES and (f.overlap_share >= LACKING_OVERLAP or f.one_core):
        return True
    return _coreless_ns(f) > QUIET_SHARE * (f.running_ns + _coreless_ns(f))


def _coreless_ns(f: Figures) -> int:
    """For how long threads could have gone on, and had no core, all together."""
    states = usage.state_sums(f.process).sum(axis=0)
    return int(states[list(_CORELESS)].sum())


def _allowed(f: Figures) -> float:
    """How many cores the process may use on average; 0 if that is not known."""
    cores = f.process.cores
    return 0 if cores is None else min(cores.cpus, cores.quota or cores.cpus)


def _took_all(f: Figures) -> bool:
    """Whether it was the process's own threads that had all the cores it may use, while some had none, or always."""
    allowed = _allowed(f)
    if not allowed or _cores(f) >= ALL_CORES * allowed:
        return bool(allowed)
    used = lacked = 0
    for time, (ran, coreless) in levels(f.process.states, (RUNNING, _CORELESS)):
        length = np.diff(time)[coreless > 0]
        used, lacked = used + int(length @ ran[coreless > 0]), lacked + int(length.sum())
    return lacked > 0 and used >= ALL_CORES * allowed * lacked


def _had(f: Figures) -> str:
    if _lacked_cores(f):
        return f"had {_cores(f):.1f} cores on average while anything ran, and could have used more"
    return f"kept {_cores(f):.1f} cores busy on average while anything ran"


def _advice(f: Figures, what: str) -> str:
    lacked = _lacked_cores(f)
    if f.one_core or (lacked and not _took_all(f)):
        return f"The GIL is not the limit here, but cores are{f.wanted_core}"
    if lacked:
        return (
            f"The GIL is not the limit here, but cores are: its threads had all {_allowed(f):g} that the process may "
            f"use, and were ready to run without one for {duration(_coreless_ns(f))} in all. More {what} gain nothing "
            "before it may use more."
        )
    if _cores(f) >= ALL_CORES * _allowed(f) > 0:
        return (
            f"The GIL is not the limit here, and the {_allowed(f):g} cores that the process may use are all busy: more "
            f"{what} gain nothing before it may use more."
        )
    return f"The GIL is not the limit here; more {what} help until the cores run out."

"""Threads that run at once: native code off the GIL, or interpreters with a GIL each."""

from __future__ import annotations

from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.measure import usage

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
    return _cores(f) < SEVERAL_CORES and (f.overlap_share >= LACKING_OVERLAP or f.one_core)


def _had(f: Figures) -> str:
    if _lacked_cores(f):
        return f"had {_cores(f):.1f} cores on average while anything ran, and could have used more"
    return f"kept {_cores(f):.1f} cores busy on average while anything ran"


def _advice(f: Figures, what: str) -> str:
    if _lacked_cores(f) or f.one_core:
        return f"The GIL is not the limit here, but cores are{f.wanted_core}"
    return f"The GIL is not the limit here; more {what} help until the cores run out."

"""Contention: threads want the GIL while another one runs with it."""

from __future__ import annotations

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.collected import collected
from giltrace.analysis.findings.figures import ONE_CORE, Figures
from giltrace.analysis.findings.forked import forked
from giltrace.analysis.findings.hand_over import hand_over
from giltrace.analysis.findings.servers import more_processes
from giltrace.text import plural

#: Contention: somebody waits while another thread runs with the GIL for this share of the time, leaving out that in
#: which the threads that could run had no core. With less, a GIL that is gone would save less than a quarter ...
CONTENDED_SHARE = 0.3
#: ... the GIL is held for much of it, and so many threads wait for `CONTENDER_SHARE` of their lives: what one loses
#: to others alone is its own story.
CONTENDERS = 2


def contended(f: Figures) -> Verdict | None:
    """Do two threads or more compete for the GIL most of the time?"""
    much = f.competed_share >= CONTENDED_SHARE and f.held_much
    return contention(f) if much and f.contenders >= CONTENDERS else None


def contention(f: Figures) -> Verdict:
    """Tell of threads that compete for the GIL."""
    requests = len(f.process.switch_requests)
    waited = int(f.waited.sum())
    jobs = hand_over(f)
    told = f" Of the held time {percent(jobs.share)} went to handing jobs over." if jobs else ""
    forks = None if jobs else forked(f)
    return Verdict(
        "cpu-bound-contention",
        f"CPU-bound contention: somebody waited for the GIL {percent(f.contended_share)} of the time, "
        f"{duration(waited)} in all over {plural(f.waiters, 'thread')}; {plural(requests, 'switch request')}."
        f"{told}{forks.told if forks else ''}",
        jobs.advice if jobs else forks.advice if forks else f"{_advice(f)}{collected(f)}",
        {
            "contended_share": f.contended_share,
            "competed_share": f.competed_share,
            "held_share": f.held_share,
            "contenders": f.contenders,
            "waiters": f.waiters,
            "switch_requests": requests,
            "waited_ns": waited,
            **({"hand_over_share": jobs.share} if jobs else {}),
            **({"forked_ns": forks.ns} if forks else {}),
        },
    )


def _advice(f: Figures) -> str:
    if f.one_core:
        return f"{ONE_CORE}: neither threads nor processes can speed this up before it may use more."
    return f"Threads cannot speed this up: use {instead_of_threads(f)}."


def instead_of_threads(f: Figures) -> str:
    """What does not wait for a GIL, in words of the program's own."""
    more = more_processes(f.process)
    processes = f"processes ({more})" if more else "processes"
    return f"{processes}, sub-interpreters, a free-threaded build, or native code"

"""A process that hardly used a GIL: it has none, nothing is known of it, or it is idle."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.blocked_loop import blocked_beside, blocked_loop, hung_loop
from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.event_loops import loop_of_thread
from giltrace.analysis.findings.figures import QUIET_SHARE, Figures
from giltrace.analysis.findings.stood import stood
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.loops import LOOPS
from giltrace.timeline.model import State

#: A process with one thread that runs for less than this share of its wall time is idle: timers and pings take less.
IDLE_SHARE = 0.05
#: With several threads that use the GIL, idle means less than this: short steps are what I/O-bound threads do.
IDLE_SHARE_SEVERAL = 0.001
#: Of a build that can do without a GIL, one that was held for less than this share was so as it started.
WITHOUT_SHARE = 0.05
#: It was off after the start if a thread ran so long without it before it took it again ...
OFF_NS = 3_000_000
#: ... early in the process.
EARLY_SHARE = 0.5
#: Loops whose tasks are those of asyncio.
_ASYNCIO = ("asyncio", "uvloop", "Tornado")


def free_threaded(f: Figures) -> Verdict | None:
    """Was the interpreter built without a GIL, and was none used but by its start?"""
    told = f"{f.process.python} {f.process.note}".lower()
    if "free-thread" not in told or f.held_share > WITHOUT_SHARE or f.contended_share > WITHOUT_SHARE:
        return None
    cores = f.running_ns / max(f.running.any_ns, 1)
    ran = f" They ran on {cores:.1f} cores on average while anything ran." if f.process.has_sched and cores else ""
    lost = sum(row.ns for row in f.lock_blame)
    most = f.lock_blame[0] if f.lock_blame else None
    blocked = (
        f" In locks they lost {duration(lost)}, most at {most.victim.where}."
        if most is not None and most.victim.function and lost > QUIET_SHARE * f.wall
        else ""
    )
    rest = (
        "Threads that run all the time, are hardly blocked and yet do not scale share memory: reference counts of the "
        "same objects, and cache lines. That cannot be seen from here; give each thread objects of its own."
    )
    return Verdict(
        "free-threaded",
        f"Free-threaded: the interpreter was built without a GIL, and no thread waits for one.{ran}{blocked}",
        rest if not blocked else f"See below what they were blocked by. {rest}",
        {"running_share": f.busy_share, "blocked_ns": lost},
    )


def gil_is_on(f: Figures) -> str:
    """Who switched the GIL of a free-threaded build on, in words; empty if nobody did, and for other builds."""
    holds = f.process.holds
    if not f.process.free_threaded or f.held_share <= WITHOUT_SHARE:
        return ""
    reach = np.maximum.accumulate(holds["end"])
    later = np.flatnonzero(holds["start"][1:] - reach[:-1] > OFF_NS) + 1
    ran = usage.in_state(
        f.process, State.OFF_RUNNING, holds["thread"][later], reach[later - 1], holds["start"][later].astype(np.int64)
    )
    early = later[(ran > OFF_NS) & (holds["start"][later] - f.process.start < EARLY_SHARE * f.wall)]
    if not len(early):
        return " This Python could do without a GIL, but was started with it: by PYTHON_GIL=1, or -X gil=1."
    known = f.process.stacks
    stack = known.hold_end[early[:1]] if known is not None else np.array([-1])
    site = f.sites.classify(holds["thread"][early[:1]], stack).sites[0]
    where = f", at {site.where}" if site.function else ""
    since = duration(int(holds["start"][early[0]]) - f.process.start)
    return (
        f" This Python could do without a GIL, but had it from {since} on{where}: a module was imported there that "
        "does not say that it can do without."
    )


def not_recorded(f: Figures) -> Verdict | None:
    """Is no use of a GIL on record?"""
    if f.holders:
        return None
    if f.process.unused:
        return _unused(f)
    why = f" ({f.process.note})" if f.process.note else ""
    return Verdict("not-recorded", f"No use of a GIL is on record{why}.", "Run `giltrace doctor` to see what it takes.")


def _unused(f: Figures) -> Verdict:
    """Nobody had or wanted a GIL, and that is known: what they wait for is something else."""
    said = f"the GIL was free, and none of its threads wanted it in {duration(f.wall)}"
    evidence = {"running_share": f.busy_share}
    if f.busy_share >= IDLE_SHARE:
        return Verdict(
            "io-bound-handoff",
            f"Off the GIL: {said}; they ran other code for {percent(f.busy_share)} of that time.",
            "The GIL is not the limit here: look at that code with a native profiler.",
            evidence,
        )
    return hung_loop(f) or Verdict(
        "idle",
        f"Idle: {said}. They wait for I/O, for locks or for each other.",
        stood(f) or "If they should be at work, see where each of them stands: `py-spy dump --pid PID`.",
        evidence,
    )


def idle(f: Costed) -> Verdict | None:
    """Did the threads hardly run, and nobody wait?"""
    limit = IDLE_SHARE if f.holders < 2 else IDLE_SHARE_SEVERAL
    if f.busy_share * f.wall >= limit * f.had or f.contended_share >= limit:
        return None
    if (blocked := blocked_loop(f)) is not None:
        return blocked
    return Verdict(
        "idle",
        f"Idle: its threads ran for {percent(f.busy_share)} of {duration(f.wall)}.",
        f"{_loop(f) or 'Record while the process has work to do.'} {stood(f)}".rstrip() + blocked_beside(f),
        {"running_share": f.busy_share, "contended_share": f.contended_share},
    )


def _loop(f: Figures) -> str:
    """What may keep the tasks of an event loop, if the thread that used the GIL most runs one; else empty."""
    kind = int(loop_of_thread(f.process)[f.top]) if f.holders else 0
    if not kind:
        return ""
    how = "Task.print_stack() of each in asyncio.all_tasks()" if LOOPS[kind] in _ASYNCIO else "by its own tools"
    return (
        f"Thread {f.name(f.top)!r} runs an event loop ({LOOPS[kind]}) that hardly had anything to run. If there was "
        "work to do, its tasks waited for I/O, for timers or for each other, in locks and queues of the loop, which "
        f"giltrace does not see: look where they stand, {how}."
    )

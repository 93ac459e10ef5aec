"""Threads that are mostly off the GIL and hand it on."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.durations import percent
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.contention import instead_of_threads
from giltrace.analysis.findings.costs import Cause, Costed
from giltrace.analysis.findings.figures import QUIET_SHARE, Figures
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.activity import Doing
from giltrace.analysis.measure.block_causes import AWAITED, BlockCause
from giltrace.timeline.model import State

#: What handing the GIL on takes at least, with a thread that has to wake up: a futex, a switch and a cold cache.
HAND_OFF_NS = 5_000
#: A line is where threads are blocked if that is this share of all that they were: at most three can be.
BLOCKED_SHARE = 0.3
#: All hangs on a line if it makes up this share of the critical path.
PATH_SHARE = 0.5


def io_bound(f: Costed) -> Verdict:
    """Tell of threads that are off the GIL, and why they waited where they did."""
    holders = f.holds > 0
    off = float(1 - (f.held + f.waited)[holders].sum() / max(int(f.lives[holders].sum()), 1))
    known = f.process.has_sched
    what_for = "to wait for I/O, for locks or for each other" if known else "to wait, or to run native code"
    advice = f"The GIL is not the limit here: threads give it up {what_for}.{blocked_at(f)}"
    if f.contended_share > QUIET_SHARE:
        advice = _why_waited(f)
    elif f.hand_offs * HAND_OFF_NS > QUIET_SHARE * f.wall:
        advice = (
            f"Nobody waits for long, but threads hand the GIL on {round(f.hand_offs * 1e9 / f.wall):,} times per "
            "second, and each time one has to wake up. Let them do more at a time: pass several items at once, wake up "
            "others less often."
        )
    return Verdict(
        "io-bound-handoff",
        f"{'I/O-bound' if known else 'Mostly off the GIL'}: {f.holders} threads spent {percent(off)} of their lives "
        f"off the GIL and passed it on {f.hand_offs} times; somebody waited {percent(f.contended_share)} of the time.",
        advice,
        {
            "off_gil_share": off,
            "held_share": f.held_share,
            "contended_share": f.contended_share,
            "hand_offs": f.hand_offs,
        },
    )


def one_line(f: Costed) -> Verdict | None:
    """Does the end hang on what one line of a thread sleeps for, and hardly on any wait for the GIL?

    Of a main thread that is no answer: a server's sleeps until somebody comes. Nor is it where nobody waits for that
    line but who joins its thread, nor where a thread was late each time that the end happens not to hang on.
    """
    if not len(f.process.blocks) or not f.on_path or f.costs.of_path().sum() > QUIET_SHARE * f.wall:
        return None
    most = f.on_path[0]
    share = most.ns / f.wall
    if most.doing != Doing.ASLEEP.label or share < PATH_SHARE or most.site.thread == "MainThread":
        return None
    if not most.site.own_function or not (f.lasting_share > QUIET_SHARE or _awaited(f)) or _late(f):
        return None
    return Verdict(
        "io-bound-handoff",
        f"One line is what all hangs on: {most.site.thread} was asleep or in I/O at {most.site.where} for "
        f"{percent(share)} of the time that the end of the {f.process.end_of} hung on. Somebody waited for the GIL "
        f"{percent(f.contended_share)} of the time, but that held nothing up.",
        "The GIL is not the limit here: wait for less there, or let several threads do that at once.",
        {"path_share": share, "contended_share": f.contended_share, "held_share": f.held_share},
    )


def _late(f: Costed) -> bool:
    """Did a thread lose much of its life to waits for the GIL, more than one, and had no time to spare: for other
    threads it waited less? Where it waits for them anyway, as a stage does for a slower one, it only does so later.
    """
    again = np.bincount(f.process.waits["thread"], minlength=len(f.waited)) > 1
    spare = usage.sum_by_thread(f.process, f.process.blocks)
    return bool((again & (f.waited > QUIET_SHARE * f.lives) & (spare < f.waited)).any())


def _awaited(f: Costed) -> bool:
    """Did other threads wait for what threads do for much of the time? To join one is no stage of anything."""
    given = {cause.label for cause in AWAITED if cause not in (BlockCause.JOIN, BlockCause.START)}
    return sum(row.ns for row in f.lock_blame if row.cause in given) >= PATH_SHARE * f.wall


def _why_waited(f: Costed) -> str:
    """What the waits were for, where threads hardly competed for the GIL."""
    python, in_c, no_core, asleep, free = f.causes.sum(axis=0).tolist()
    waited = max(python + in_c + no_core + asleep + free, 1)
    if no_core >= max(python + in_c, asleep, free):
        return f"{percent(no_core / waited)} of the waiting passed while the holder had no core{f.wanted_core}"
    if asleep >= max(python + in_c, free):
        return (
            f"{percent(asleep / waited)} of the waiting passed while the holder slept with the GIL: in a call that "
            "should release it, or for a page of memory that was not there."
        )
    if free >= python + in_c:
        return (
            f"{percent(free / waited)} of the waiting passed while nobody held the GIL: threads were being woken up to "
            "take it. Let them do more at a time, so that they hand it on less often."
        )
    lost = f.costs.of_threads()
    if lost[Cause.CONTENTION] > lost[Cause.HAND_OFFS]:
        instead = f"what would not wait: {instead_of_threads(f)}"
        if f.one_core:
            instead = "more processes would wait for the one core instead that this one may use"
        return (
            f"{percent(lost[Cause.CONTENTION] / waited)} of the waiting passed while other threads ran Python code. It "
            f"grows with every thread and request more; {instead}."
        )
    return (
        "The waits are for the rest of brief turns: threads hand the GIL on all the time. Let them do more at a time, "
        "so that they hand it on less often."
    )


def blocked_at(f: Figures) -> str:
    """The line of the user's where threads were blocked most, if one stands out; a main thread that joins is not."""
    main = next((i for i, thread in enumerate(f.process.threads) if thread.tid == f.process.pid), -1)
    calls = f.calls
    joins = np.array([site.file.endswith("/threading.py") for site in calls.sites], np.bool_)
    calls = calls.without((calls.states["thread"][calls.row] == main) & joins[calls.call])
    blocked = calls.total(State.OFF_BLOCKED)
    total = max(int(blocked.sum()), 1)
    # A library's own threads sleep in the library all the time.
    blocked[[not site.own_function for site in calls.sites]] = 0
    if not blocked.any() or blocked.max() < BLOCKED_SHARE * total:
        return ""
    most = int(blocked.argmax())
    share = percent(float(blocked[most] / total))
    return f" They are blocked at {calls.sites[most].where} for {share} of that."

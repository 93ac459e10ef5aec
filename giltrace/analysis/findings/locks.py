"""Threads that wait for each other in locks: one at a time, by turns that are too brief, or all for one."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.figures import ONE_CORE, Figures
from giltrace.analysis.findings.hand_over import hand_over
from giltrace.analysis.lock_results import LockBlame, Meanwhile
from giltrace.analysis.measure.activity import Doing
from giltrace.analysis.measure.block_causes import GIVEN_BACK, BlockCause
from giltrace.analysis.measure.lock_blame import chain
from giltrace.analysis.site import Site
from giltrace.timeline.axis import Bools, union_length
from giltrace.timeline.model import BlockEnd

#: Somebody was blocked in locks for this share of the time that the threads had: as much as makes it contention where
#: it is the GIL.
LOCK_SHARE = 0.3
#: ... or for this share, where something else would be the verdict that cost less: as much as shows in how long the
#: program takes.
BESIDE_SHARE = 0.1
#: The world stood still for this share of the time: that many threads lose it each time.
WORLD_SHARE = 0.1
#: Turns with a lock are brief if they take less than it takes to wake the next thread up, on average ...
BRIEF_NS = 50_000
#: ... and if there are so many of them in a second.
MANY_TURNS = 1_000
#: What an owner did for this share of the time in which it had a core is what to look at.
TELLING_SHARE = 0.5

_AT_ONCE = ", and could run at once in several threads."
_ADVICE = {
    BlockCause.LOGGING_LOCK: (
        "Writing log records makes threads wait for each other: let logging.handlers.QueueHandler hand them to a "
        "thread that writes, or log less."
    ),
    BlockCause.IMPORT_LOCK: (
        "Do less while the module is imported: who needs it waits for that, whichever thread imports it. Importing it "
        "before the threads start takes as long, but keeps none of them waiting, nor any request."
    ),
    BlockCause.OBJECT_LOCK: "Give each thread an object of its own, and put the parts together at the end.",
    BlockCause.PROCESS_LOCK: "Processes share that lock: hold it for less, or give each process its own part.",
    BlockCause.SEMAPHORE: "A semaphore lets so many in at once: raise its number if what it guards bears more.",
}


def stop_the_world(f: Figures) -> Verdict | None:
    """Did a free-threaded interpreter stop all threads for much of the time?"""
    rows = _rows(f, f.block_causes == BlockCause.STOP_THE_WORLD)
    share = min(rows / f.had, 1.0)
    if share < WORLD_SHARE:
        return None
    blame = [row for row in f.lock_blame if row.cause == BlockCause.STOP_THE_WORLD.label]
    lost = sum(row.ns for row in blame)
    who = next((row.waker for row in blame if row.waker is not None), None)
    at = f" Most of it at {_where(who)}." if who is not None else ""
    return Verdict(
        "stop-the-world",
        f"Stopped: for {percent(share)} of the time threads stood still while another one had the world stopped, "
        f"and lost {duration(lost)} by that.{at}",
        "What stops all threads of a free-threaded Python is above all the garbage collector: call gc.freeze() once "
        "the program has started, raise gc.set_threshold(), or make fewer objects that refer to each other.",
        {"stopped_share": share, "lost_ns": lost},
    )


def lock_bound(f: Figures) -> Verdict | None:
    """Did threads wait for each other in locks for much of the time, and more than for the GIL?"""
    return _lock_bound(f, LOCK_SHARE)


def lock_beside(f: Figures) -> Verdict | None:
    """Did they for some of the time, and more than for the GIL: more than what else was found can have cost?

    A lock whose owner waits for the GIL with it is no cause: what keeps the GIL is.
    """
    names = {cause.label for cause in GIVEN_BACK}
    most = next((row for row in f.lock_blame if row.cause in names), None)
    if most is None or [one.doing for one in _with_a_core(most)[:1]] == [Doing.WAITING.label]:
        return None
    return _lock_bound(f, BESIDE_SHARE)


def _lock_bound(f: Figures, least: float) -> Verdict | None:
    given = np.isin(f.block_causes, GIVEN_BACK) & ~_waits_for_work(f)
    share = min(_rows(f, given) / f.had, 1.0)
    names = {cause.label for cause in GIVEN_BACK}
    # Whoever waits for work from before the record to its end has no part in it.
    blame = [row for row in f.lock_blame if row.cause in names and (row.waker is not None or row.max_ns < f.wall)]
    blame = blame or [row for row in f.lock_blame if row.cause in names]
    lost = sum(row.ns for row in blame)
    if share < least or lost <= f.lost_ns:
        return None
    most = blame[0]
    length = (f.turns.end - f.turns.start)[given[f.turns.block]]
    many = len(length) >= MANY_TURNS * f.wall / 1e9
    brief = many and float(np.median(length)) < BRIEF_NS
    number = sum(row.blocks for row in blame)
    evidence = {"blocked_share": share, "lost_ns": lost, "blocks": number}
    which = f"the lock of a {' or '.join(most.objects[:3])}" if most.objects else "a lock"
    lead = f"for {percent(share)} of the time somebody was blocked in {which}, most at {_where(most.victim)}"
    blocks = f"{most.blocks:,} {'block' if most.blocks == 1 else 'blocks'}"
    told = f"{duration(most.ns)} in {blocks}, {duration(most.max_ns)} at most"
    if brief:
        return Verdict(
            "lock-bound",
            f"Lock convoy: {lead}: {told}. The lock changed hands {round(len(length) * 1e9 / f.wall):,} times per "
            "second, and each time a thread had to wake up.",
            "Take it less often: do several steps at a time with it, or keep what it guards per thread and add that up "
            "now and then.",
            {**evidence, "turn_ns": float(np.median(length))},
        )
    return Verdict("lock-bound", f"Lock-bound: {lead}: {told}.{_meanwhile(most)}", _advice(f, most), evidence)


def own_objects(f: Figures) -> str:
    """What to do about native code that has a lock of its own."""
    what = "What is called there has a lock of its own"
    if f.one_core:
        return f"{what}. {ONE_CORE}, for which threads would wait instead: more at once would gain nothing."
    return f"{what}: give each thread an object of its own (a connection, a parser, a session), or use processes."


def _waits_for_work(f: Figures) -> Bools:
    """Which blocks are in a semaphore from before the record to its end: as who serves others waits for what to do."""
    blocks = f.process.blocks
    whole: Bools = (blocks["start"] <= f.process.start) & (blocks["ended"] == BlockEnd.OPEN)
    whole &= f.block_causes == BlockCause.SEMAPHORE
    return whole


def _rows(f: Figures, chosen: Bools) -> int:
    """For how long somebody was in one of the blocks that are `chosen`, in ns."""
    rows = f.process.blocks[chosen]
    return union_length(rows["start"], rows["end"]) if len(rows) else 0


def _where(site: Site) -> str:
    return site.where if site.function else f"the end of {site.thread}"


def _own_line(site: Site) -> str:
    """The user's line; where a library's is all that is known, that was come to when the work was done."""
    return site.where if site.own_function else f"a line that is not known, before {site.where},"


_DID = {
    Doing.PYTHON.label: "ran Python up to",
    Doing.WAITING.label: "waited for the GIL at",
    Doing.LOCK.label: "was itself blocked at",
    Doing.ASLEEP.label: "was asleep or in I/O at",
    Doing.NATIVE.label: "ran native code at",
    Doing.NO_CORE.label: "had no core at",
    Doing.OFF.label: "was off the GIL at",
    Doing.ASLEEP_WITH_GIL.label: "slept with the GIL at",
}


def did(one: Meanwhile) -> str:
    """What a thread did, in words."""
    known = _DID[one.doing]
    if not one.site.function:
        return known.removesuffix(" at").removesuffix(" up to")
    return f"{known} {one.site.where}"


def _meanwhile(row: LockBlame) -> str:
    if not row.meanwhile:
        return ""
    first = row.meanwhile[0]
    return f" Whoever had it {did(first)} for {percent(min(first.ns / max(row.ns, 1), 1))} of that."


def _with_a_core(row: LockBlame) -> list[Meanwhile]:
    """What owners did but for lacking a core, the longest first."""
    return [one for one in row.meanwhile if one.doing != Doing.NO_CORE.label]


def _telling(row: LockBlame) -> Meanwhile | None:
    """What owners did for most of the time in which they had a core, if one thing stands out.

    Without a core they did nothing: that counts as what they did at the same line, or not at all.
    """
    known = _with_a_core(row)
    ns = [one.ns for one in known]
    left = row.ns
    for lacked in (one for one in row.meanwhile if one.doing == Doing.NO_CORE.label):
        at = next((at for at, one in enumerate(known) if lacked.site.function and one.site == lacked.site), -1)
        if at >= 0:
            ns[at] += lacked.ns
        else:
            left -= lacked.ns
    most = max(range(len(known)), key=ns.__getitem__, default=-1)
    return known[most] if most >= 0 and ns[most] >= TELLING_SHARE * left else None


def _advice(f: Figures, row: LockBlame) -> str:
    jobs = hand_over(f)
    if jobs is not None:
        return jobs.advice
    cause = next(cause for cause in BlockCause if cause.label == row.cause)
    if cause in _ADVICE:
        return _ADVICE[cause]
    end = chain(f.lock_blame, row)[-1]
    last = _telling(end)
    if last is None:
        return "See below what its owners did with it: do less of that inside the lock, or use a lock for each part."
    line = last.site.where if last.site.function else ""
    if last.doing == Doing.ASLEEP.label:
        what = f"What sleeps or waits for I/O at {line}" if line else "A sleep or I/O"
        return f"{what} is done with the lock taken: do it outside, or give each thread a lock of its own."
    if last.doing == Doing.ASLEEP_WITH_GIL.label:
        what = f"What is called at {line}" if line else "A call"
        return f"{what} sleeps with the lock taken, and with the GIL: do it outside, and let it release the GIL."
    if last.doing == Doing.PYTHON.label:
        what = f"The work at {_own_line(last.site)} is done with the lock taken: do less of it inside."
        if not line:
            what = "Whoever has the lock computes with it: do less inside, or give each thread an object of its own."
        beside = "" if f.process.free_threaded else " Without the lock these threads would wait for the GIL instead."
        return f"{what}{beside}"
    if last.doing == Doing.NATIVE.label and line and line == row.victim.where:
        return own_objects(f)
    if last.doing == Doing.NATIVE.label:
        what = f"The native code called at {line}" if line else "Native code"
        rest = f". {ONE_CORE}, for which threads would wait then." if f.one_core else _AT_ONCE
        return f"{what} runs with the lock taken{rest}"
    if last.doing == Doing.WAITING.label:
        return "Its owner waited for the GIL with it: what holds the GIL meanwhile is told below."
    return "See below what its owners did with it."

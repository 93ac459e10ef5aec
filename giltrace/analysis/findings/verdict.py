"""The verdict on one process: what its threads and its GIL did to each other, and the figures that decided."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.findings.figures import TURN_NS, Figures
from giltrace.analysis.findings.long_interval import find_long_interval
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.wait_causes import wait_causes
from giltrace.analysis.results import Verdict
from giltrace.timeline.model import Process

#: A process with one thread that runs for less than this share of its wall time is idle.
IDLE_SHARE = 0.05
#: With several threads that use the GIL, idle means less than this: short steps are what I/O-bound threads do.
IDLE_SHARE_SEVERAL = 0.001
#: Hogs decide the verdict if they overstay for this share of the time that the threads had in all.
HOG_SHARE = 0.05
#: ... and are collections of garbage if this share of what waiters saw in them was that.
COLLECTING_SHARE = 0.5
#: Parallel: threads ran off the GIL for this many times the held time ...
PARALLEL_RATIO = 0.8
#: ... for this share of the wall time, and at least two ran at once for this share of the time that any ran.
PARALLEL_SHARE = 0.1
PARALLEL_OVERLAP = 0.1
#: With several GILs in use, two threads at once for this share is parallel too.
GILS_OVERLAP = 0.5
#: Contention: somebody waits while another thread runs with the GIL for this share of the time, leaving out that in
#: which the threads that could run had no core; the GIL is held for that share of the wall time ...
CONTENDED_SHARE = 0.3
CONTENDED_HELD_SHARE = 0.5  # ... and at least two threads wait for `CONTENDER_SHARE` of their lives.
#: One thread that has this share of the held time is on its own, as long as nobody waits for a running one for more
#: than `QUIET_SHARE` of that time.
ALONE_SHARE = 0.9
QUIET_SHARE = 0.1
#: Several threads take turns if one has the GIL for this share of the time that they had (`usage.used_share`), and
#: runs for `TURN_NS` in its turn, on average.
TURNS_SHARE = 0.75

#: What to do about a core that was not there.
_WANTED_CORE = (
    "see what else ran on this machine (the trace shows it), and what the process may use: its CPU affinity, its "
    "container's CPU limit"
)


def judge(process: Process) -> Verdict:
    """Judge one process. The first rule that applies decides.

    1. *free-threaded*: the interpreter was built without a GIL, and none was used.
    2. *not-recorded*: no use of a GIL is on record, so nothing can be said.
    3. *idle*: its threads hardly ran (`IDLE_SHARE`, `IDLE_SHARE_SEVERAL`) and nobody waited.
    4. *hog*: holds went on for two switch intervals or more after a switch request (`HOG_OVERSTAY_INTERVALS`), not
       counting time without a core, for `HOG_SHARE` of the time that there was one in all. Without scheduling data
       only those of `usage.UNEXPLAINED_NS` or more count.
    5. *convoy*: some thread made `CONVOY_STEPS` short steps, each after a wait of about a switch interval; or waited
       longer than Python's own interval before its steps, since the one in force was longer (`long_interval.LONG_NS`).
    6. *parallel*: threads ran off the GIL about as long as it was held (`PARALLEL_RATIO`), on more than one core at
       once (`PARALLEL_OVERLAP`); or several GILs were held at once. Needs scheduling data.
    7. *cpu-bound-contention*: two or more threads wanted the GIL most of the time (`CONTENDED_SHARE`).
    8. *single-threaded*: one thread had nearly all of the held time (`ALONE_SHARE`), or several had it in turns with
       hardly a break (`TURNS_SHARE`, `TURN_NS`), and hardly anyone waited.
    9. *io-bound-handoff* where the rest is left and waits are few or brief, *cpu-bound-contention* where they are not
       (`QUIET_SHARE`, `TURN_NS`).

    A wait counts for 7 to 9 as long as another thread ran with the GIL: while nobody holds it, or its holder has no
    core, threads do not compete for it.
    """
    figures = Figures(process)
    for rule in _RULES:
        verdict = rule(figures)
        if verdict is not None:
            return verdict
    return _contention(figures) if figures.lasting_share > QUIET_SHARE else _io_bound(figures)


def _free_threaded(f: Figures) -> Verdict | None:
    told = f"{f.process.python} {f.process.note}".lower()
    if f.holders or "free-thread" not in told:
        return None
    return Verdict(
        "free-threaded",
        "The interpreter was built without a GIL: no thread waits for one.",
        "Only cores, locks and memory limit these threads; the scheduling tracks show the cores.",
        {"running_share": f.busy_share},
    )


def _not_recorded(f: Figures) -> Verdict | None:
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
    return Verdict(
        "idle",
        f"Idle: {said}. They wait for I/O, for locks or for each other.",
        "If they should be at work, see where each of them stands: `py-spy dump --pid PID`.",
        evidence,
    )


def _idle(f: Figures) -> Verdict | None:
    limit = IDLE_SHARE if f.holders < 2 else IDLE_SHARE_SEVERAL
    if f.busy_share * f.wall >= limit * f.had or f.contended_share >= limit:
        return None
    return Verdict(
        "idle",
        f"Idle: its threads ran for {percent(f.busy_share)} of {duration(f.wall)}.",
        "Record while the process has work to do.",
        {"running_share": f.busy_share, "contended_share": f.contended_share},
    )


def _hog(f: Figures) -> Verdict | None:
    over = f.overstays
    share = int(over.length.sum()) / f.had
    if share < HOG_SHARE:
        return None
    worst = int(over.length.argmax())
    name = f.name(int(f.process.holds["thread"][over.hold[worst]]))
    longest = int(over.length[worst])
    times = "once" if len(over.hold) == 1 else f"{len(over.hold)} times"
    evidence = {"hogs": len(over.hold), "overstay_share": share, "longest_overstay_ns": longest}
    collecting = f.collecting_share
    if collecting >= COLLECTING_SHARE:
        return Verdict(
            "hog",
            f"Garbage collection: {times}, a collection kept the GIL after it was asked to drop it; in thread {name!r} "
            f"for up to {duration(longest)}.",
            "The line where one begins is innocent: it made the next object. Call gc.freeze() once the program has "
            "started, so that what is there by then is left alone; raise gc.set_threshold(), or make fewer objects.",
            {**evidence, "collecting_share": collecting},
        )
    return Verdict(
        "hog",
        f"GIL hog: {times}, a thread kept the GIL after it was asked to drop it; thread {name!r} for up to "
        f"{duration(longest)}, where Python code takes microseconds.",
        "Let that native code release the GIL around its work, or hand it smaller pieces.",
        evidence,
    )


def _long_interval(f: Figures) -> Verdict | None:
    found = find_long_interval(f.process)
    if found is None:
        return None
    first = found.threads[0]
    share = float(f.waited[first] / f.lives[first])
    more = f" (and {len(found.threads) - 1} more)" if len(found.threads) > 1 else ""
    return Verdict(
        "convoy",
        f"Starved by the switch interval: it was {duration(found.interval_ns)} where Python starts with "
        f"{duration(usage.DEFAULT_SWITCH_INTERVAL_NS)}, so threads kept the GIL until they gave it up by themselves. "
        f"Thread {f.name(first)!r}{more} waited up to {duration(found.longest_ns)} before short steps: "
        f"{percent(share)} of its life.",
        "Find the call of sys.setswitchinterval(), in your code or a library's, and set it back to "
        f"{usage.DEFAULT_SWITCH_INTERVAL_NS / 1e9:g}: of that wait, {duration(found.saved_ns)} would be gone.",
        {
            "threads": len(found.threads),
            "steps": found.steps,
            "longest_wait_ns": found.longest_ns,
            "saved_ns": found.saved_ns,
            "waited_share": share,
            "switch_interval_ns": found.interval_ns,
        },
    )


def _convoy(f: Figures) -> Verdict | None:
    caught, steps, waits = f.convoy
    if not caught:
        return None
    first = caught[0]
    count, wait = int(steps.number[first]), int(steps.median_wait[first])
    share = float(f.waited[first] / f.lives[first])
    mine = f.process.waits[waits & (f.process.waits["thread"] == first)]
    interval = int(np.median(usage.switch_interval(f.process, mine["gil"], mine["start"])))
    more = f" (and {len(caught) - 1} more)" if len(caught) > 1 else ""
    return Verdict(
        "convoy",
        f"Convoy: thread {f.name(first)!r}{more} made {count} short steps and waited {duration(wait)} (median) for the "
        f"GIL before each: {percent(share)} of its life.",
        "Move the CPU-bound work to other processes, or lower sys.setswitchinterval() and measure: it was "
        f"{duration(interval)}.",
        {
            "threads": len(caught),
            "steps": count,
            "median_wait_ns": wait,
            "waited_share": share,
            "switch_interval_ns": interval,
        },
    )


def _parallel(f: Figures) -> Verdict | None:
    if not f.process.has_sched:
        return None
    off_share = f.off_running_ns / f.wall
    ratio = f.off_running_ns / max(f.held_ns, 1)
    native = ratio >= PARALLEL_RATIO and off_share >= PARALLEL_SHARE and f.overlap_share >= PARALLEL_OVERLAP
    several = f.gils > 1 and f.overlap_share >= GILS_OVERLAP
    if not native and not several:
        return None
    cores = f.running_ns / max(f.running.any_ns, 1)
    at_once = usage.gils_at_once([f.process])
    how = "native code off the GIL" if native else f"{f.gils} GILs, {at_once:.1f} of them held at once on average,"
    off = f"; threads ran off the GIL {ratio:.1f} times as long as they held it" if native else ""
    return Verdict(
        "parallel",
        f"Parallel: {how} kept {cores:.1f} cores busy on average while anything ran{off}.",
        f"The GIL is not the limit here; more {'threads' if native else 'interpreters'} help until the cores run out.",
        {
            "gils_at_once_ratio": at_once,
            "off_running_ratio": ratio,
            "off_running_share": off_share,
            "overlap_share": f.overlap_share,
            "cores_ratio": cores,
        },
    )


def _contended(f: Figures) -> Verdict | None:
    much = f.competed_share >= CONTENDED_SHARE and f.held_share >= CONTENDED_HELD_SHARE
    return _contention(f) if much and f.contenders >= 2 else None


def _contention(f: Figures) -> Verdict:
    requests = len(f.process.switch_requests)
    waited = int(f.waited.sum())
    return Verdict(
        "cpu-bound-contention",
        f"CPU-bound contention: somebody waited for the GIL {percent(f.contended_share)} of the time, "
        f"{duration(waited)} in all over {f.contenders} threads; {requests} switch requests.",
        "Threads cannot speed this up: use processes, sub-interpreters, a free-threaded build, or native code.",
        {
            "contended_share": f.contended_share,
            "competed_share": f.competed_share,
            "held_share": f.held_share,
            "contenders": f.contenders,
            "switch_requests": requests,
            "waited_ns": waited,
        },
    )


def _single(f: Figures) -> Verdict | None:
    top = int(f.held.argmax())
    share = float(f.held[top] / max(f.held_ns, 1))
    quiet = f.competed_share <= QUIET_SHARE and f.busy_share * f.wall >= IDLE_SHARE * f.had
    alone = share >= ALONE_SHARE and f.held_share >= CONTENDED_HELD_SHARE
    if f.holders > 1 and not (quiet and (alone or (f.used_share >= TURNS_SHARE and f.turn_ns >= TURN_NS))):
        return None
    evidence = {
        "top_held_share": share,
        "running_share": f.busy_share,
        "coreless_share": f.coreless_share,
        "contended_share": f.contended_share,
    }
    if f.holders > 1 and share < ALONE_SHARE:
        return Verdict(
            "single-threaded",
            f"One thread at a time: {f.holders} threads took turns with the GIL, which one of them had for "
            f"{percent(f.used_share)} of the time, and hardly waited for it.",
            "The GIL is not what lets only one run: look at what the others are blocked on where they gave it up, a "
            "lock, a queue or each other's end.",
            {"used_share": f.used_share, **evidence},
        )
    lacked = f.coreless_share > QUIET_SHARE
    coreless = f", and lacked a core while it held the GIL for {percent(f.coreless_share)}" if lacked else ""
    advice = "The GIL costs nothing here; speed comes from faster code or from more processes."
    if lacked:
        advice = f"The GIL costs nothing here, but a core does: {_WANTED_CORE}."
    return Verdict(
        "single-threaded",
        f"Single-threaded: thread {f.name(top)!r} had {percent(share)} of the held time; the process ran for "
        f"{percent(f.busy_share)} of {duration(f.wall)}{coreless}.",
        advice,
        evidence,
    )


def _io_bound(f: Figures) -> Verdict:
    off = float(1 - (f.held.sum() + f.waited.sum()) / max(int(f.lives.sum()), 1))
    known = f.process.has_sched
    what_for = "to wait for I/O, for locks or for each other" if known else "to wait, or to run native code"
    advice = f"The GIL is not the limit here: threads give it up {what_for}."
    if f.contended_share > QUIET_SHARE:
        advice = _why_waited(f)
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


def _why_waited(f: Figures) -> str:
    """What the waits were for, where threads hardly competed for the GIL."""
    python, in_c, off_core, free = wait_causes(f.process).sum(axis=0).tolist()
    waited = max(python + in_c + off_core + free, 1)
    if off_core >= max(python + in_c, free):
        share = percent(off_core / waited)
        return f"{share} of the waiting passed while the holder had no core, or slept with the GIL: {_WANTED_CORE}."
    if free >= python + in_c:
        return (
            f"{percent(free / waited)} of the waiting passed while nobody held the GIL: threads were being woken up to "
            "take it. Let them do more at a time, so that they hand it on less often."
        )
    return (
        "The waits are for the rest of brief turns: threads hand the GIL on all the time. Let them do more at a time, "
        "so that they hand it on less often."
    )


_RULES: tuple[Callable[[Figures], Verdict | None], ...] = (
    _free_threaded,
    _not_recorded,
    _idle,
    _hog,
    _long_interval,
    _convoy,
    _parallel,
    _contended,
    _single,
)

#: Every kind of verdict.
KINDS = (
    "cpu-bound-contention",
    "io-bound-handoff",
    "convoy",
    "hog",
    "parallel",
    "single-threaded",
    "idle",
    "free-threaded",
    "not-recorded",
)

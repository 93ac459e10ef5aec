"""Convoys: threads whose short steps each wait for about a switch interval."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Convoy, IntervalEstimate, Verdict
from giltrace.analysis.findings.figures import CONVOY_HOLD_NS, ONE_CORE, Figures
from giltrace.analysis.findings.long_interval import find_long_interval
from giltrace.analysis.findings.servers import more_processes
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.attribution import attribute
from giltrace.analysis.measure.sites import Sites
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.model import Array, Process

#: For these switch intervals the effect on a convoy is estimated.
OTHER_INTERVALS_NS = (usage.DEFAULT_SWITCH_INTERVAL_NS, 1_000_000, 500_000, 100_000)

#: What is left of a wait after whole switch intervals counts as wake-up latency up to this part of an interval: waking
#: up takes 0.05 to 0.5 ms, of an interval of 5.
LATENCY_SHARE = 0.1


def find_convoys(process: Process, figures: Figures | None = None) -> tuple[Convoy, ...]:
    """The threads in a convoy, by the rule of the verdict, most waited time first.

    Threads that waited mostly for hogs are not among them, nor those that a long interval starved: that tells it.
    """
    f = figures or Figures(process)
    threads, steps, long = f.convoy
    if threads:
        behind = _behind_hogs(f) | _starved(f)
        threads = [thread for thread in threads if not behind[thread]]
    if not threads:
        return ()
    sites = Sites(process)
    stacks = sites.wait_stacks()
    found = []
    for thread in threads:
        number, median = int(steps.number[thread]), int(steps.median_wait[thread])
        life = max(process.threads[thread].end - process.threads[thread].start, 1)
        mine = np.flatnonzero(long & (process.waits["thread"] == thread))
        waits = process.waits[mine]
        interval = _interval(process, waits)
        kinds = sites.classify(process.waits["thread"][mine], stacks[mine])
        usual = int(np.bincount(kinds.of_row).argmax())
        stack = np.bincount(stacks[mine][kinds.of_row == usual] + 1).argmax() - 1
        found.append(
            Convoy(
                site=kinds.sites[usual],
                tid=process.threads[thread].tid,
                steps=number,
                steps_per_s=number * 1e9 / life,
                wait_p50_ns=median,
                waited_ns=int(f.waited[thread]),
                waited_share=float(f.waited[thread] / life),
                switch_interval_ns=interval,
                estimates=_estimates(process, thread, mine, interval),
                stack=sites.stack(int(stack)),
            )
        )
    return tuple(sorted(found, key=lambda convoy: -convoy.waited_ns))


def _behind_hogs(f: Figures) -> Bools:
    """The threads that waited mostly for holds that did not heed a request: no switch interval changes that."""
    hog = np.zeros(len(f.process.holds), np.int64)
    hog[f.overstays.hold] = 1
    if not hog.any():
        return np.zeros(len(f.waited), np.bool_)
    shares = attribute(f.process, f.process.waits["thread"].astype(np.int64), hog)
    lost = np.zeros(len(f.waited), np.int64)
    lost[shares.victim[shares.culprit == 1]] = shares.ns[shares.culprit == 1]
    return lost * 2 > f.waited


def _starved(f: Figures) -> Bools:
    """The threads whose waits in a convoy are mostly those that a long interval explains."""
    starved = np.zeros(len(f.waited), np.bool_)
    found = find_long_interval(f)
    if found is None:
        return starved
    length = usage.lengths(f.process.waits)
    by_both, by_one = (
        np.bincount(f.process.waits["thread"], np.where(waits, length, 0), len(starved))
        for waits in (f.convoy.waits & found.waits, f.convoy.waits)
    )
    starved[found.threads] = True
    return starved & (by_both * 2 > by_one)


def _interval(process: Process, waits: Array) -> int:
    """The switch interval under which half of these waits were, or a shorter one."""
    intervals = np.sort(usage.switch_interval(process, waits["gil"], waits["start"]))
    return int(intervals[len(intervals) // 2])


def _estimates(process: Process, thread: int, rows: Ints, interval: int) -> tuple[IntervalEstimate, ...]:
    """What other intervals would make of the thread's steps under this `interval`, while that was set.

    `rows` are the numbers of its waits.

    Each interval that a step waits out becomes the other interval, and what a short rest is stays: wake-up latency. A
    long rest is part of another thread's turn, which is as long as the interval too.
    """
    waits = process.waits
    mine = np.zeros(len(waits), np.bool_)
    mine[rows] = usage.switch_interval(process, waits["gil"][rows], waits["start"][rows]) == interval
    steps = waits[usage.step_waits(process, mine, CONVOY_HOLD_NS)]
    if not len(steps):
        return ()
    length = usage.lengths(steps)
    waited_out = length / max(interval, 1)
    waited_out = np.where(waited_out % 1 < LATENCY_SHARE, np.floor(waited_out), waited_out)
    rest = length - waited_out * interval
    time = _time_under(process, thread, int(steps["gil"][0]), interval)
    estimates = []
    for other in OTHER_INTERVALS_NS:
        if other < interval:
            wait = rest + waited_out * other
            left = max(time - float((length - wait).sum()), float(wait.sum()), 1.0)
            estimates.append(IntervalEstimate(other, round(float(np.median(wait))), len(steps) * 1e9 / left))
    return tuple(estimates)


def _time_under(process: Process, thread: int, gil: int, interval: int) -> int:
    """For how long of the thread's life, in ns, the switch interval was this."""
    life, seen = process.threads[thread], process.switch_intervals
    seen = seen[seen["gil"] == gil]
    if len(seen) < 2:
        return max(life.end - life.start, 1)
    edges = np.concatenate([[life.start], np.clip(seen["start"][1:], life.start, life.end), [life.end]])
    return int(np.diff(edges)[seen["ns"] == interval].sum())


def convoy(f: Figures) -> Verdict | None:
    """Is a thread in a convoy?"""
    caught, steps, waits = f.convoy
    if not caught:
        return None
    first = caught[0]
    count, wait = int(steps.number[first]), int(steps.median_wait[first])
    share = float(f.waited[first] / f.lives[first])
    interval = _interval(f.process, f.process.waits[waits & (f.process.waits["thread"] == first)])
    more = f" (and {len(caught) - 1} more)" if len(caught) > 1 else ""
    return Verdict(
        "convoy",
        f"Convoy: thread {f.name(first)!r}{more} made {count} short steps and waited {duration(wait)} (median) for the "
        f"GIL before each: {percent(share)} of its life.",
        _advice(f, interval),
        {
            "threads": len(caught),
            "steps": count,
            "median_wait_ns": wait,
            "waited_share": share,
            "switch_interval_ns": interval,
        },
    )


def _advice(f: Figures, interval: int) -> str:
    lower = f"lower sys.setswitchinterval() and measure: it was {duration(interval)}"
    if f.one_core:
        return f"{ONE_CORE}, which other processes would have to share. Until it may use more, {lower}."
    more = more_processes(f.process)
    if more:
        return f"Run more processes ({more}), so that requests need not share a GIL with what computes; or {lower}."
    return f"Move the CPU-bound work to other processes, or {lower}."

"""Convoys: threads whose short steps each wait for about a switch interval."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Convoy, IntervalEstimate, Verdict
from giltrace.analysis.findings.figures import ONE_CORE, Figures
from giltrace.analysis.findings.servers import more_processes
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.attribution import attribute
from giltrace.analysis.measure.sites import Sites
from giltrace.timeline.axis import Bools
from giltrace.timeline.model import Process

#: For these switch intervals the effect on a convoy is estimated.
OTHER_INTERVALS_NS = (1_000_000, 500_000, 100_000)

#: What is left of a wait after whole switch intervals counts as wake-up latency up to this part of an interval: waking
#: up takes 0.05 to 0.5 ms, of an interval of 5.
LATENCY_SHARE = 0.1


def find_convoys(process: Process, figures: Figures | None = None) -> tuple[Convoy, ...]:
    """The threads in a convoy, by the rule of the verdict, most waited time first.

    Threads that waited mostly for hogs are not among them.
    """
    f = figures or Figures(process)
    threads, steps, long = f.convoy
    if threads:
        behind = _behind_hogs(f)
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
        interval = int(np.median(usage.switch_interval(process, waits["gil"], waits["start"])))
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
                estimates=_estimates(number, life, median, interval),
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


def _estimates(steps: int, life: int, median: int, interval: int) -> tuple[IntervalEstimate, ...]:
    """Each interval that a step waits out becomes the other interval, and what a short rest is stays: wake-up latency.

    A long rest is part of another thread's turn, which is as long as the interval too.
    """
    waited_out = median / max(interval, 1)
    if waited_out % 1 < LATENCY_SHARE:
        waited_out = float(int(waited_out))
    rest = median - waited_out * interval
    period = life / steps
    estimates = []
    for other in OTHER_INTERVALS_NS:
        if other < interval:
            wait = round(rest + waited_out * other)
            estimates.append(IntervalEstimate(other, wait, 1e9 / max(period - (median - wait), wait, 1)))
    return tuple(estimates)


def convoy(f: Figures) -> Verdict | None:
    """Is a thread in a convoy?"""
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

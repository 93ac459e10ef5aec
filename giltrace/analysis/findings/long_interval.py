"""A switch interval so long that nobody is asked to give the GIL up: a thread keeps it until it blocks by itself."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.figures import QUIET_SHARE, Figures, until_forced
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.wait_causes import competed_ns
from giltrace.timeline.axis import Bools

#: Long enough to be meant, and for waits to be seen beside those for other reasons: people who tune for throughput
#: double Python's 5 ms at most.
LONG_NS = 4 * usage.DEFAULT_SWITCH_INTERVAL_NS
#: A thread is starved if it would have waited less by this share of its life with Python's own interval: a tenth is
#: hardly seen beside what runs differ by.
STARVED_SHARE = 0.1


class LongInterval(NamedTuple):
    """The `threads` that it starved, most first, with the figures of the first; times in ns.

    `interval_ns` is the median of those that it waited under, `saved_ns` what it waited beyond Python's own interval,
    `longest_ns` its longest wait; `steps` such waits were each followed by a hold shorter than Python's interval.
    `waits` (bool, one per wait) are those of all threads.
    """

    threads: list[int]
    interval_ns: int
    steps: int
    longest_ns: int
    saved_ns: int
    waits: Bools


def find_long_interval(f: Figures) -> LongInterval | None:
    """Who waits for a running thread longer than Python's own switch interval, only to hold the GIL for a moment?

    Threads that compute for longer gain nothing by a shorter interval: what they wait less they wait more often.
    """
    process, waits, default = f.process, f.process.waits, usage.DEFAULT_SWITCH_INTERVAL_NS
    interval = f.intervals
    if not (interval >= LONG_NS).any():
        return None
    over = np.where(interval >= LONG_NS, f.causes[:, 0] - default, 0)  # who runs C code does not heed a request
    brief = np.zeros(len(waits), np.bool_)
    led = waits["hold"] >= 0
    brief[led] = usage.lengths(process.holds)[waits["hold"][led]] <= default
    step = brief & (over >= default)  # twice as long, at least
    saved = np.bincount(waits["thread"][step], weights=over[step], minlength=len(process.threads)).astype(np.int64)
    lives = usage.lives(process)
    threads = sorted(np.flatnonzero((saved > 0) & (saved >= STARVED_SHARE * lives)).tolist(), key=lambda i: -saved[i])
    if not threads:
        return None
    mine = step & (waits["thread"] == threads[0])
    return LongInterval(
        threads,
        int(np.median(interval[mine])),
        int(np.count_nonzero(mine)),
        int(usage.lengths(waits[mine]).max()),
        int(saved[threads[0]]),
        step,
    )


def long_interval(f: Figures) -> Verdict | None:
    """Was a thread starved by the switch interval?"""
    found = find_long_interval(f)
    if found is None:
        return None
    first = found.threads[0]
    share = float(f.waited[first] / f.lives[first])
    more = f" (and {len(found.threads) - 1} more)" if len(found.threads) > 1 else ""
    forced = bool((until_forced(f.process) & found.waits).any())
    kept = "for so long before they were made to give it up" if forced else "until they gave it up by themselves"
    return Verdict(
        "convoy",
        f"Starved by the switch interval: it was {duration(found.interval_ns)} where Python starts with "
        f"{duration(usage.DEFAULT_SWITCH_INTERVAL_NS)}, so threads kept the GIL {kept}. "
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


def nobody_asked(f: Figures) -> str:
    """That a long interval made waits longer, in words; empty where that is not so for much of the time.

    That holds of threads that compute for long, too: these gain nothing by a shorter one, but that each waits for less
    at once.
    """
    default = usage.DEFAULT_SWITCH_INTERVAL_NS
    interval = f.intervals
    if not (interval >= LONG_NS).any():
        return ""
    python = f.causes[:, 0]
    mine = (interval >= LONG_NS) & (python >= 2 * default)
    if not mine.any() or competed_ns(f.process, chosen=mine) <= QUIET_SHARE * f.had:
        return ""
    return (
        f" The switch interval was {duration(int(np.median(interval[mine])))} where Python starts with "
        f"{duration(default)}, so threads kept the GIL until they gave it up by themselves, or for so long; others "
        f"waited up to {duration(int(python[mine].max()))} at once. Find the call of "
        f"sys.setswitchinterval(), and set it back to {default / 1e9:g}: the whole takes as long, but each thread "
        "waits for less at a time."
    )

"""A switch interval so short that passing the GIL on takes a part of the time that is measured."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.measure import usage
from giltrace.timeline.model import Flag

#: Far below Python's own: with a longer one hand-offs are as rare as to cost nothing.
SHORT_NS = usage.DEFAULT_SWITCH_INTERVAL_NS // 5
#: It costs something if passing the GIL on, when its holder was made to give it up, took this share of the time: with
#: Python's own interval that takes half a percent.
COST_SHARE = 0.015
#: What takes longer than this to take a free GIL has no core.
LONGEST_NS = 1_000_000


class ShortInterval(NamedTuple):
    """What it cost, in words of advice, and as figures for the evidence."""

    advice: str
    evidence: dict[str, float]


def short_interval(f: Figures) -> ShortInterval | None:
    """Does a short interval make threads pass the GIL on so often that it shows?

    Threads with short steps are served by it: what they would wait without it, nobody knows.
    """
    intervals = f.intervals
    if not len(intervals) or (interval := int(np.median(intervals))) > SHORT_NS or f.convoy.threads:
        return None
    forced, ns = _passed_on(f)
    if ns < COST_SHARE * f.wall:
        return None
    default = usage.DEFAULT_SWITCH_INTERVAL_NS
    return ShortInterval(
        f" The switch interval was {duration(interval)} where Python starts with {duration(default)}: threads were "
        f"made to give the GIL up {forced:,} times, and for {percent(ns / f.wall)} of the time it was on its way from "
        "one to the next. Find the call of sys.setswitchinterval(), and set it back to "
        f"{default / 1e9:g}, unless a thread has to have the GIL sooner.",
        {"switch_interval_ns": interval, "forced_releases": forced, "passed_on_share": ns / f.wall},
    )


def _passed_on(f: Figures) -> tuple[int, int]:
    """How often a thread was made to give a GIL up, and how long (ns) that was free before the next one had it."""
    count = ns = 0
    for gil in range(f.process.gils):
        holds = usage.of_gil(f.process.holds, gil)
        forced = (holds["flags"] & np.uint8(Flag.FORCED)) > 0
        free = holds["start"][1:] - holds["end"][:-1]
        count += int(np.count_nonzero(forced))
        ns += int(np.clip(free[forced[:-1]], 0, LONGEST_NS).sum())
    return count, ns

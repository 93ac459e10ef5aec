"""One thread that the others serve: what these wait for is the work that it wakes them up for."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.figures import ONE_CORE, QUIET_SHARE
from giltrace.analysis.findings.hogs import asleep, asleep_unasked, collection, hog
from giltrace.analysis.findings.long_interval import find_long_interval
from giltrace.analysis.findings.single import ALONE_SHARE
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.intervals import last_released
from giltrace.analysis.measure.wait_causes import kept_ns
from giltrace.analysis.replay.program import dependencies
from giltrace.timeline.axis import Bools, LifeAxis

#: The others serve it if more than this share of what they waited came after it had woken them up.
SERVED_SHARE = 0.5


def bottleneck(f: Costed) -> Verdict | None:
    """Does one thread have the GIL nearly all the time, and do the others wait only as it has woken them up?

    The stages of a pipeline beside the one that computes wait for the GIL most of their lives, and hold nobody up. Who
    keeps the GIL past requests, or as nobody is to ask for it, is told as what it is. Whoever wakes up by itself, by
    its clock or for I/O, is late by what it waits, whatever had the GIL meanwhile: also one that slept with it.
    """
    alone = f.holders > 1 and f.top_share >= ALONE_SHARE and f.held_much
    if not alone or f.waited[f.top] > QUIET_SHARE * f.lives[f.top]:
        return None
    if f.costs.of_path().sum() > QUIET_SHARE * f.wall:
        return None
    others = f.process.waits["thread"] != f.top
    served = _served(f) & others
    length = usage.lengths(f.process.waits)
    waited, for_it = int(length[others].sum()), int(length[served].sum())
    if for_it <= SERVED_SHARE * waited or kept_ns(f.process, chosen=~served) > QUIET_SHARE * f.had:
        return None
    if (
        any(rule(f) is not None for rule in (hog, asleep, collection, asleep_unasked))
        or find_long_interval(f) is not None
    ):
        return None
    elsewhere = f". {ONE_CORE}" if f.one_core else ", or do its work in several processes"
    return Verdict(
        "single-threaded",
        f"One thread is what all hangs on: {f.name(f.top)!r} had {percent(f.top_share)} of the held time and hardly "
        f"waited. The others waited {duration(for_it)} for the GIL, but for what that thread had woken them up for.",
        f"The GIL costs nothing here: make that thread's code faster{elsewhere}.",
        {"top_held_share": f.top_share, "contended_share": f.contended_share, "waited_ns": for_it},
    )


def _served(f: Costed) -> Bools:
    """Which waits are of threads that the top one had woken up since they last had the GIL."""
    process, waits = f.process, f.process.waits
    edges = dependencies(process, f.native)
    axis = LifeAxis.of_threads(process.threads)
    place = axis.place(edges.thread, edges.time)
    order = np.argsort(place, kind="stable")
    if len(order) == 0:
        return np.zeros(len(waits), np.bool_)
    last = order[np.maximum(np.searchsorted(place[order], axis.place(waits["thread"], waits["start"]), "right") - 1, 0)]
    released = last_released(process, axis, waits["thread"], waits["start"])
    since = np.where(released >= 0, process.holds["end"][released], process.start)
    served: Bools = (edges.thread[last] == waits["thread"]) & (edges.waker[last] == f.top)
    return served & (edges.time[last] >= since) & (edges.time[last] <= waits["start"])

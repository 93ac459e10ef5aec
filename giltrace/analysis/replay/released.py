"""What it would bring if a call that keeps the GIL released it."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.finding_results import Hog
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.intervals import covered
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.replay.crews import fed_crews, levelled
from giltrace.analysis.results import WhatIf
from giltrace.timeline.axis import Bools, Ints, union
from giltrace.timeline.model import Process, State


def released(
    process: Process, sites: Sites, hogs: tuple[Hog, ...], replayed: WhatIf, over: usage.Overstays
) -> tuple[float, ...]:
    """By how much the whole would be faster, at most, if each of the hogs had released the GIL; at least 1.

    `over` are the holds that the hogs are made of. Others at the same line are no part of them: nobody who had asked
    was kept out. Nor is the time in such a hold before anybody waited: the whole cannot gain more than the rest.
    What others do with the GIL is still done one by one. And a thread wants the GIL back after such a call: as often as
    it was a hog, it waits for whoever has it, for as long as that one goes on, or until the switch interval is over.
    Threads that take jobs from a queue may share them anew.
    """
    if not hogs:
        return ()
    holds, length = process.holds, usage.lengths(process.holds)
    kinds = sites.classify(holds["thread"][over.hold], sites.hold_stacks()[over.hold])
    interval = usage.switch_interval(process, holds["gil"], holds["start"])
    turn = np.minimum(length, interval).astype(np.float64)
    busy = usage.sum_by_thread(process, holds)
    if process.has_sched:
        busy = busy + usage.state_sums(process)[:, State.OFF_RUNNING]
    busy = levelled(busy, fed_crews(process))
    workers = [thread.end for thread in process.threads if thread.tid != process.pid]
    tail = process.end - max(workers, default=process.end)
    waited = _waited(process)
    found = []
    for hog in hogs:
        mine: Bools = np.zeros(len(holds), np.bool_)
        if hog.site in kinds.sites:
            mine[over.hold[kinds.of_row == kinds.sites.index(hog.site)]] = True
        rest = int(length[~mine].sum())
        least = max(replayed.makespan_ns, rest, replayed.measured_ns - int(waited[mine].sum()), 1)
        # Who comes back meets a turn at any moment of it: the longer ones more often.
        meets = float((turn[~mine] ** 2).sum()) / 2 / least
        threads, calls = np.unique(holds["thread"][mine], return_counts=True)
        for thread, number in zip(threads.tolist(), calls.tolist(), strict=True):
            before = process.threads[thread].start - process.start
            least = max(least, before + int(busy[thread]) + int(number * meets) + tail)
        found.append(max(replayed.measured_ns / min(least, max(replayed.measured_ns, 1)), 1.0))
    return tuple(found)


def _waited(process: Process) -> Ints:
    """For how long of each hold anybody waited for it."""
    start, end = union(process.waits["start"], process.waits["end"])
    return covered(start, end, process.holds["end"]) - covered(start, end, process.holds["start"])

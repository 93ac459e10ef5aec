"""Threads that run an event loop: what they waited, and for whom."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from giltrace.analysis.finding_results import EventLoop
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.culprit_sites import CulpritSites
from giltrace.analysis.measure.loops import LOOPS, number_of
from giltrace.analysis.measure.sites import Sites
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process, Stacks


def find_event_loops(process: Process) -> tuple[EventLoop, ...]:
    """The threads with a loop's frames in a stack of theirs, the one that waited most first; none without stacks."""
    kind = loop_of_thread(process)
    runners = np.flatnonzero(kind).tolist()
    if not runners:
        return ()
    thread = process.waits["thread"].astype(np.int64)
    culprits = CulpritSites(process, Sites(process)).mains(thread, kind[thread] > 0)
    waits = usage.count_by_thread(process, process.waits)
    waited = usage.sum_by_thread(process, process.waits)
    most = usage.longest_by_thread(process, process.waits)
    found = []
    for runner in runners:
        loop = EventLoop(
            thread=process.threads[runner].name or f"tid {process.threads[runner].tid}",
            tid=process.threads[runner].tid,
            loop=LOOPS[kind[runner]],
            waits=int(waits[runner]),
            waited_ns=int(waited[runner]),
            wait_max_ns=int(most[runner]),
        )
        if (most_for := culprits.get(runner)) is not None:
            loop = replace(loop, culprit=most_for.site, culprit_ns=most_for.ns, culprit_stack=most_for.stack)
        found.append(loop)
    return tuple(sorted(found, key=lambda loop: -loop.waited_ns))


def loop_of_thread(process: Process) -> Ints:
    """For each thread the number in `LOOPS` of the loop that it runs, 0 for none."""
    result = np.zeros(len(process.threads), np.int64)
    if process.stacks is None or len(process.stacks.table) == 0:
        return result
    loop = np.append(_loop_of_stack(process.stacks), 0)
    stacks = process.stacks
    for rows, stack in (
        (process.waits, stacks.wait),
        (process.holds, stacks.hold_begin),
        (process.holds, stacks.hold_end),
    ):
        here = loop[stack]
        some = here > 0
        np.maximum.at(result, rows["thread"][some], here[some])
    return result


def _loop_of_stack(stacks: Stacks) -> Ints:
    """For each stack the number in `LOOPS` of the loop whose frames it has."""
    table = stacks.table
    frames = table.frames
    places, at = np.unique(
        frames["function"].astype(np.int64) * len(table.strings) + frames["file"], return_inverse=True
    )
    known = [divmod(place, len(table.strings)) for place in places.tolist()]
    kind = np.array([number_of((table.strings[function], table.strings[file])) for function, file in known])[at.ravel()]
    owner = np.repeat(np.arange(len(table)), np.diff(table.offsets))
    result = np.zeros(len(table), np.int64)
    np.maximum.at(result, owner, kind)
    return result

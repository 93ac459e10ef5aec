"""The end of a process that is already going: its threads were told to end, and wait for the GIL once more for that."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.measure.intervals import covered
from giltrace.timeline.axis import Bools, Ints, LifeAxis, union
from giltrace.timeline.model import Process, State
from giltrace.timeline.once import once

#: A thread that was told to end does so within as much time with the GIL.
ENDING_NS = 1_000_000


@once
def ending_waits(process: Process) -> Bools:
    """The waits that cost nobody anything: those of threads that end then, once no thread has anything else to do.

    A thread ends with its last sleep if it hardly holds the GIL after that. What the main thread does then is what is
    left to do as the process ends. Nothing of the kind is told of a process that went on after its recording, nor
    without scheduling data.
    """
    waits = process.waits
    none = np.zeros(len(waits), np.bool_)
    if not len(waits) or not process.has_sched or process.end_of != "process":
        return none
    axis = LifeAxis.of_threads(process.threads)
    woken = _last_woken(process)
    ends = (woken >= 0) & (_held_since(process, woken) <= ENDING_NS)
    main = np.array([thread.tid == process.pid for thread in process.threads])
    busy_until = np.where(ends, woken, axis.ends)[~main]
    if not len(busy_until):
        return none
    thread = waits["thread"]
    told: Bools = (ends & ~main)[thread] & (waits["start"] >= woken[thread]) & (waits["end"] >= busy_until.max())
    return told


def only_ending(process: Process, start: Ints, end: Ints, gil: Ints) -> Bools:
    """Whether those who waited for a `gil` in the times from `start` to `end` were ending (one row each)."""
    ending = ending_waits(process)
    told = np.zeros(len(start), np.bool_)
    if not ending.any():
        return told
    for number in np.unique(gil).tolist():
        mine = np.flatnonzero(gil == number)
        waited = []
        for chosen in (ending, ~ending):
            rows = process.waits[chosen & (process.waits["gil"] == number)]
            both = union(rows["start"], rows["end"])
            waited.append(covered(*both, end[mine]) - covered(*both, start[mine]))
        told[mine] = (waited[0] > 0) & (waited[1] == 0)
    return told


def _last_woken(process: Process) -> Ints:
    """When each thread last went on after a sleep off the GIL, before it used a GIL for the last time; -1: never."""
    last, waited, woken = np.full((3, len(process.threads)), -1, np.int64)
    # All are in order of time, and of several values for one index numpy keeps the last.
    last[process.holds["thread"]] = process.holds["start"]
    waited[process.waits["thread"]] = process.waits["start"]
    np.maximum(last, waited, out=last)
    slept = process.states.take(np.flatnonzero(process.states["state"] == State.OFF_BLOCKED))
    before = slept["start"] < last[slept["thread"]]
    woken[slept["thread"][before]] = slept["end"][before]
    return woken


def _held_since(process: Process, time: Ints) -> Ints:
    """How long each thread had a GIL after that time of its own."""
    holds = process.holds
    after = np.maximum(holds["end"] - np.maximum(holds["start"], time[holds["thread"]]), 0)
    return np.bincount(holds["thread"], weights=after, minlength=len(process.threads)).astype(np.int64)

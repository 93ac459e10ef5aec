"""The critical path: what the end of a process hung on, or that of the part of its time that is looked at.

From that end backwards it follows one thread until that was woken up by another, or started: from there that one.
What a thread waited for the GIL off this path cost its own time, and nobody the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from giltrace.analysis.lock_results import OnPath
from giltrace.analysis.measure.activity import Activity, by_line, during
from giltrace.analysis.measure.intervals import covered
from giltrace.analysis.measure.off_gil import off_gil
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.usage import hold_counts
from giltrace.analysis.replay.native_locks import Wakes, native_wakes
from giltrace.analysis.replay.program import TOLD_TO_END, WAKE_SLACK_NS, dependencies
from giltrace.timeline.axis import Ints, LifeAxis
from giltrace.timeline.model import Array, Flag, Process

#: A loop gives the GIL up by itself so often at most, as a thread does while it begins and ends ...
LOOP_RELEASES = 6
#: ... or at the end of this share of its holds: it may write a line now and then.
LOOP_SHARE = 0.1


class CriticalPath(NamedTuple):
    """Stretches of the path, one row each: the `thread` that it lay in, from `start` to `end`; sorted by start."""

    thread: Ints
    start: Ints
    end: Ints


def critical_path(process: Process, native: Wakes | None = None) -> CriticalPath:
    """Find the path. It begins in the main thread, or, where that is over, in the one that held a GIL last.

    The `native_wakes` are worked out if they are not given.
    """
    threads = process.threads
    if not threads:
        none = np.empty(0, np.int64)
        return CriticalPath(none, none, none)
    edges = dependencies(process, native or native_wakes(off_gil(process)))
    axis = LifeAxis.of_threads(threads)
    order = np.argsort(axis.place(edges.thread, edges.time), kind="stable")
    place, waker = axis.place(edges.thread, edges.time)[order], edges.waker[order]
    first = np.searchsorted(place, axis.place(np.arange(len(threads)), axis.starts))
    told = _told_to_end(process, axis.starts, axis.ends)
    found: list[tuple[int, int, int]] = []
    thread, time = _last(process), process.end
    while True:
        time, whole = min(time, threads[thread].end), threads[thread]
        at_its_end = whole.end - time <= TOLD_TO_END * (whole.end - whole.start)
        if found and at_its_end and told[thread] not in (-1, found[-1][0]):
            begin = min(time, threads[told[thread]].end)
            found.append((thread, begin, time))
            thread, time = int(told[thread]), begin
            continue
        at = int(np.searchsorted(place, axis.place(np.array([thread]), np.array([time]))[0], "left")) - 1
        begin = int(edges.time[order[at]]) if at >= first[thread] else time
        # Each step leads back in time, also where the records are damaged.
        if begin < time:
            found.append((thread, begin, time))
            thread, time = int(waker[at]), begin
            continue
        found.append((thread, whole.start, time))
        if edges.parent[thread] < 0 or whole.start >= time:
            break
        thread, time = int(edges.parent[thread]), whole.start
    rows = np.array(found[::-1], np.int64)
    return CriticalPath(*rows[rows[:, 2] > rows[:, 1]].T)


def _told_to_end(process: Process, starts: Ints, ends: Ints) -> Ints:
    """Whose steps each thread's loop ended with, -1 if nobody's: a loop runs until another thread tells it to stop.

    A loop hardly ever gives the GIL up by itself; who tells it does. Which of both ends first is chance.
    """
    own = (process.holds["flags"] & np.uint8(Flag.FORCED)) == 0
    loop = hold_counts(process, own) <= np.maximum(LOOP_RELEASES, LOOP_SHARE * hold_counts(process))
    # The main thread is there to the last for other reasons.
    steps = np.array([at for at in np.flatnonzero(~loop) if process.threads[at].tid != process.pid], np.int64)
    steps = steps[np.argsort(ends[steps], kind="stable")]
    told = np.full(len(ends), -1, np.int64)
    if len(steps):
        at = np.searchsorted(ends[steps], ends + WAKE_SLACK_NS, "right") - 1
        last = steps[np.maximum(at, 0)]
        near = (at >= 0) & (ends - ends[last] <= TOLD_TO_END * (ends - starts)) & (ends[last] > starts)
        told[loop & near] = last[loop & near]
    return told


def _last(process: Process) -> int:
    """The number of the thread whose end is the end of what the process did."""
    for number, thread in enumerate(process.threads):
        if thread.tid == process.pid and thread.end >= max(other.end for other in process.threads):
            return number
    return int(process.holds["thread"][np.argmax(process.holds["end"])]) if len(process.holds) else 0


def on_path(process: Process, path: CriticalPath, rows: Array) -> Ints:
    """How much (ns) of each of the `rows` lies on the path; they have a thread, a start and an end."""
    if len(path.thread) == 0 or len(rows) == 0:
        return np.zeros(len(rows), np.int64)
    axis = LifeAxis.of_threads(process.threads)
    begin, end = axis.place(path.thread, path.start), axis.place(path.thread, path.end)
    order = np.argsort(begin, kind="stable")
    first, last = axis.place(rows["thread"], rows["start"]), axis.place(rows["thread"], rows["end"])
    return covered(begin[order], end[order], last) - covered(begin[order], end[order], first)


def path_shares(
    process: Process,
    sites: Sites,
    found: Activity,
    causes: Ints,
    path: CriticalPath,
    asleep: Callable[[Ints], Ints] | None = None,
) -> tuple[OnPath, ...]:
    """What the path consists of, by line and what was done there, most of it first.

    `causes` are those of the blocks; `asleep` tells the `AsleepCause` of stacks.
    """
    if len(path.thread) == 0 or len(found.start) == 0:
        return ()
    axis = LifeAxis.of_threads(process.threads)
    row, spent = during(found, axis, path.thread, path.start, path.end)
    kinds = by_line(sites, found, causes, row, spent, asleep)
    return tuple(OnPath(**kind._asdict(), ns=ns) for kind, ns in kinds)

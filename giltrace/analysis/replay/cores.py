"""Cores that threads of a process were ready for and did not get: which of them something else had."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.intervals import covered
from giltrace.timeline.axis import Ints, LifeAxis
from giltrace.timeline.model import Array, Process

#: The kernel may leave a thread for so long behind another one on its core while a core is idle: it puts who is woken
#: up near who woke it, and looks for a better place at its next tick.
PLACING_NS = 5_000_000


def taken(process: Process, cores: int, thread: npt.NDArray[np.int32], start: Ints, end: Ints) -> Ints:
    """For how long others than the process had a core that a thread was ready for, in each interval of being ready.

    They have those `cores` that the process does not run on. Where more threads are ready, each lacks a part of one.
    Not theirs is what a thread was left behind another one of the process for, until the kernel found it a place.
    """
    if len(start) == 0:
        return np.empty(0, np.int64)
    origin = process.start
    edges = (process.runs["start"], process.runs["end"], start, end)
    # One integer for each, which sorts much faster than an index: the time, and what changes then.
    keys = np.concatenate([(edge - origin) << 2 | what for what, edge in enumerate(edges)])
    keys.sort()
    what = (keys & 3).astype(np.uint8)
    keys >>= 2
    runs, ready = (
        np.cumsum(np.array(change, np.int8)[what], dtype=np.int32) for change in ([1, -1, 0, 0], [0, 0, 1, -1])
    )
    del what
    part = np.clip((cores - runs) / np.maximum(ready, 1), 0.0, 1.0)
    del runs, ready
    had = np.append(0.0, np.cumsum(np.diff(keys) * part[:-1]))
    del part
    placed = np.minimum(start + PLACING_NS, end)
    first, then, last = (np.interp(instant - origin, keys, had) for instant in (start, placed, end))
    del keys, had
    behind = np.clip(_behind(process, thread, start, placed, end) / np.maximum(placed - start, 1), 0, 1)
    result: Ints = ((then - first) * (1 - behind) + last - then).astype(np.int64)
    return result


def _behind(process: Process, thread: npt.NDArray[np.int32], start: Ints, until: Ints, end: Ints) -> Ints:
    """How much (ns) of each interval `until` then threads of the process ran on the core that the thread got at its
    `end`.
    """
    runs = process.runs
    if len(runs) == 0 or len(start) == 0:
        return np.zeros(len(start), np.int64)
    core = _next_core(process, runs, thread, end)
    span = process.end - process.start + 1
    base = core * span - process.start
    place = runs["start"] + runs["core"].astype(np.int64) * span - process.start
    order = np.argsort(place, kind="stable")
    begin = place[order]
    finish = begin + (runs["end"] - runs["start"])[order]
    both: Ints = covered(begin, finish, base + until) - covered(begin, finish, base + start)
    return np.where(core >= 0, both, 0)


def _next_core(process: Process, runs: Array, thread: npt.NDArray[np.int32], time: Ints) -> Ints:
    """The core that each thread ran on from that time on, or next; -1 where it did not."""
    axis = LifeAxis.of_threads(process.threads)
    place = axis.place(runs["thread"], runs["start"])
    order = np.argsort(place, kind="stable")
    at = np.searchsorted(place[order], axis.place(thread, time), "left")
    run = order[np.minimum(at, len(order) - 1)]
    found = (at < len(order)) & (runs["thread"][run] == thread)
    return np.where(found, runs["core"][run].astype(np.int64), -1)

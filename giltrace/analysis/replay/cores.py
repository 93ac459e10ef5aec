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
#: So many changes are looked at at a time.
_PIECE = 1 << 18

Floats = npt.NDArray[np.float64]


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
    placed = np.minimum(start + PLACING_NS, end)
    first, then, last = _had(keys, cores, np.concatenate([start, placed, end]) - origin).reshape(3, -1)
    del keys
    behind = np.clip(_behind(process, thread, start, placed, end) / np.maximum(placed - start, 1), 0, 1)
    result: Ints = ((then - first) * (1 - behind) + last - then).astype(np.int64)
    return result


def _had(keys: Ints, cores: int, instants: Ints) -> Floats:
    """How much of a core others had up to each of the instants for one thread that was ready all the time."""
    order = np.argsort(instants, kind="stable")
    asked, found = instants[order], np.empty(len(instants), np.float64)
    runs = ready = done = 0
    had = 0.0
    for at in range(0, len(keys), _PIECE):
        piece = keys[at : at + _PIECE + 1]  # and the first one of the next
        what, time = piece[:_PIECE] & 3, piece >> 2
        running, waiting = (
            np.cumsum(np.append(before, np.array(change)[what]))[1:]
            for before, change in ((runs, [1, -1, 0, 0]), (ready, [0, 0, 1, -1]))
        )
        part = np.clip((cores - running) / np.maximum(waiting, 1), 0.0, 1.0)[: len(time) - 1]
        reach = np.cumsum(np.append(had, np.diff(time) * part))
        until = len(asked) if at + _PIECE >= len(keys) else int(np.searchsorted(asked, time[-1]))
        found[order[done:until]] = np.interp(asked[done:until], time, reach)
        runs, ready, had, done = int(running[-1]), int(waiting[-1]), reach[-1], until
    return found


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
    begin, finish = place[order], (place + (runs["end"] - runs["start"]))[order]
    del place, order
    to, since = covered(begin, finish, base + np.stack([until, start]))
    return np.where(core >= 0, to - since, 0)


def _next_core(process: Process, runs: Array, thread: npt.NDArray[np.int32], time: Ints) -> Ints:
    """The core that each thread ran on from that time on, or next; -1 where it did not."""
    axis = LifeAxis.of_threads(process.threads)
    # They are in order.
    at = np.searchsorted(axis.place(runs["thread"], runs["start"]), axis.place(thread, time), "left")
    run = np.minimum(at, len(runs) - 1)
    found = (at < len(runs)) & (runs["thread"][run] == thread)
    return np.where(found, runs["core"][run].astype(np.int64), -1)

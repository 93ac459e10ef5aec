"""The states of threads, of a recording that is read in windows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from giltrace.recording.order import heads
from giltrace.timeline.axis import Bools, Ints, LifeAxis, concatenated_ranges
from giltrace.timeline.model import STATE, Array, Process
from giltrace.timeline.states import thread_states
from giltrace.timeline.windows import Window


class WindowStates:
    """Tiles the lives of the threads of an outlined process, window by window.

    A state that goes on where a window ends is told in the one that it ends in.
    """

    def __init__(self, process: Process) -> None:
        assert process.outlined is not None
        self._process = process
        self._born = np.array(process.outlined.born, np.bool_)
        self._starts, self._ends, _ = LifeAxis.of_threads(process.threads)
        runs = process.runs
        self._on, self._off = (np.ascontiguousarray(runs[edge]) for edge in ("start", "end"))
        self._first = np.searchsorted(runs["thread"], np.arange(len(process.threads) + 1))
        self._open = np.empty(0, STATE)

    def of(self, window: Window) -> Array:
        """The states that end in the next window (dtype `STATE`), sorted by thread and start."""
        if not self._process.has_sched:
            return self._open
        since, until = window.since, window.until
        alive = np.flatnonzero((self._starts < until) & (self._ends > since))
        starts, ends = (np.clip(edge[alive], since, until) for edge in (self._starts, self._ends))
        place = np.zeros(len(self._starts), np.uint32)
        place[alive] = np.arange(len(alive))
        runs, ready = self._runs(alive, since, until)
        tables = [_clipped(rows, since, until) for rows in (window.process.holds, window.process.waits, runs)]
        for rows in tables:
            rows["thread"] = place[rows["thread"]]
        fresh = thread_states(starts, ends, ready, *tables)
        fresh["thread"] = alive[fresh["thread"]]
        states = _joined([self._open, fresh])
        goes_on = (states["end"] == until) & (self._ends[states["thread"]] > until)
        self._open = states[goes_on]
        ended: Array = states[~goes_on]
        return ended

    def _runs(self, alive: Ints, since: int, until: int) -> tuple[Array, Bools]:
        """What these threads ran in the window; and which of them could have run when it, or their life, began."""
        low, high = np.zeros((2, len(alive)), np.int64)
        ready = self._born[alive]
        for at, thread in enumerate(alive.tolist()):
            first, last = self._first[thread], self._first[thread + 1]
            low[at] = first + np.searchsorted(self._off[first:last], since, "right")
            high[at] = max(low[at], first + np.searchsorted(self._on[first:last], until))
            if low[at] > first:
                ready[at] = self._process.runs["preempted"][low[at] - 1] == 1
        return self._process.runs.take(concatenated_ranges(low, high)), ready


def _clipped(rows: Array, since: int, until: int) -> Array:
    """A copy of those that share time with the window; they end at its edges. What ends there goes on."""
    rows = rows[(rows["start"] < until) & (rows["end"] > since)]
    if "preempted" in (rows.dtype.names or ()):
        rows["preempted"][rows["end"] > until] = 0
    for edge in ("start", "end"):
        np.clip(rows[edge], since, until, out=rows[edge])
    return rows


def _joined(parts: Sequence[Array]) -> Array:
    """The states in order of thread and start, equal ones that follow each other as one."""
    states = np.concatenate(parts)
    states = states.take(np.lexsort((states["start"], states["thread"])))
    head = heads(states["thread"], states["state"])
    result: Array = states.take(head)
    result["end"] = states["end"][np.append(head[1:], len(states))[: len(head)] - 1]
    return result

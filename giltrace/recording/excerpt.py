"""An excerpt of a process: all events of a window of time, and of those before and after it what explains them.

Before it that is what is under way where it begins: of each thread at each GIL all since its last hold but one began,
and its last sleep in a lock. After it, it is what ends there: all up to the next release. So an excerpt takes the
memory of its window, whatever the recording.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.recording.events import GIL_EVENT, Array
from giltrace.recording.gathering import Gatherer
from giltrace.recording.layout import MAX_GILS, Kind
from giltrace.recording.order import joined

Bools = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.intp]

#: Who posted a semaphore is known by what was recorded so shortly before its sleeper was up, or after.
_POSTED_NS = 1_000_000_000


class Excerptor:
    """Takes an excerpt of one file, in the place of a `gathering.Gatherer`, to which it hands on what is left.

    The events come in pieces, each sorted by time and none before the last. The window is [start, end) in ns.
    """

    def __init__(self, start: int, end: int, gatherer: Gatherer) -> None:
        self._start, self._end, self._gatherer = start, end, gatherer
        self._before = np.empty(0, GIL_EVENT)
        # The first and the last event of each thread, and whether it has any.
        self._first, self._last = np.empty((2, 0), GIL_EVENT)
        self._seen = np.zeros(0, np.bool_)
        # Of each thread at each GIL, and asleep: whether it has not given that up, or was up, since the window ended.
        self._open = np.zeros(0, np.bool_)

    @property
    def gathered(self) -> Array:
        """As that of the gatherer."""
        return self._gatherer.gathered

    @property
    def hand_offs(self) -> Array:
        """As that of the gatherer."""
        return self._gatherer.hand_offs

    @property
    def edges(self) -> Array:
        """The first and the last event of each thread, sorted by time: from when to when each lived."""
        rows = np.concatenate([self._first[self._seen], self._last[self._seen]])
        return rows.take(np.argsort(rows["time"], kind="stable"))

    def feed(self, events: Array, *, last: bool = False) -> Array:
        """Return the events of this piece (dtype `GIL_EVENT`) that stay, after those that were kept back before it.

        The piece is written to.
        """
        self._note_edges(events)
        low, high = np.searchsorted(events["time"], (self._start, self._end))
        if low:
            self._before = self._explaining(joined([self._before, events[:low]], GIL_EVENT))
        if low == len(events) and not last:
            # No slice of them, which would keep them all.
            return np.empty(0, GIL_EVENT)
        shown = joined([self._before, events[low:high]], GIL_EVENT)
        self._before = np.empty(0, GIL_EVENT)
        self._mark_open(shown)
        return self._gatherer.feed(joined([shown, self._ending(events[high:])], GIL_EVENT), last=last)

    def _note_edges(self, events: Array) -> None:
        thread = events["thread"]
        more = max(int(thread.max(initial=0)) + 1 - len(self._seen), 0)
        self._seen = np.append(self._seen, np.zeros(more, np.bool_))
        self._first, self._last = (np.append(rows, np.zeros(more, GIL_EVENT)) for rows in (self._first, self._last))
        rows = np.arange(len(events))
        fresh = _last_of(thread[::-1], rows)
        fresh = np.where(fresh >= 0, len(events) - 1 - fresh, -1)
        fresh[self._seen[: len(fresh)]] = -1
        latest = _last_of(thread, rows)
        # Who has ended has, even if something of its comes after that.
        latest[self._last["kind"][: len(latest)] == Kind.THREAD_END] = -1
        for known, found in ((self._first, fresh), (self._last, latest)):
            some = np.flatnonzero(found >= 0)
            known[some] = events[found[some]]
        self._seen[thread] = True

    def _explaining(self, events: Array) -> Array:
        """Those of the events before the window that tell what is under way as they end."""
        kind, thread = events["kind"], events["thread"]
        stays = _of_locks(events, self._start - _POSTED_NS, self._start)
        own = np.flatnonzero(_at_gil(kind))
        gils = int(events["gil"].max(initial=0)) + 1
        key = thread[own].astype(np.int64) * gils + events["gil"][own]
        taken = np.flatnonzero(kind[own] == Kind.ACQUIRE)
        last = _last_of(key, taken)
        earlier = _last_of(key, taken[last[key[taken]] != taken])
        # Who has not had it twice has all its events yet: its life began with them.
        stays[own[np.arange(len(own)) >= earlier[key]]] = True
        latest = _last_of(thread, np.flatnonzero((kind == Kind.SLEPT) | (kind == Kind.AWOKE)))
        stays[latest[latest >= 0]] = True
        ended = np.zeros(int(thread.max(initial=0)) + 1, np.bool_)
        ended[thread[kind == Kind.THREAD_END]] = True
        left: Array = events[stays & ~ended[thread]]
        return left

    def _ending(self, events: Array) -> Array:
        """Those of the events after the window that end what is under way as they begin."""
        stays = _of_locks(events, self._end, self._end + _POSTED_NS)
        key = _keys(events)
        known = key < len(self._open)
        kind = events["kind"]
        own = np.flatnonzero((kind != Kind.POSTED) & known & self._open[np.where(known, key, 0)])
        given = own[(kind[own] == Kind.RELEASE) | (kind[own] == Kind.AWOKE)]
        first = np.full(len(self._open), len(events))
        # Of several values for one index, numpy keeps the last: here the first one.
        first[key[given[::-1]]] = given[::-1]
        stays[own[own <= first[key[own]]]] = True
        self._open[key[given]] = False
        left: Array = events[stays]
        return left

    def _mark_open(self, events: Array) -> None:
        """Note whose events these are."""
        key = _keys(events)
        more = max(int(key.max(initial=0)) + 1 - len(self._open), 0)
        self._open = np.append(self._open, np.zeros(more, np.bool_))
        self._open[key] = True


def _keys(events: Array) -> npt.NDArray[np.int64]:
    """A number for each event: equal for those of a thread at a GIL, and for those of one in locks."""
    place = np.where(_at_gil(events["kind"]), events["gil"], np.uint16(MAX_GILS))
    keys: npt.NDArray[np.int64] = events["thread"].astype(np.int64) * (MAX_GILS + 1) + place
    return keys


def _at_gil(kind: npt.NDArray[Any]) -> Bools:
    """Which kinds of events are about a GIL."""
    found: Bools = (kind <= Kind.RELEASE) | (kind == Kind.SAMPLE)
    return found


def _of_locks(events: Array, since: int, until: int) -> Bools:
    """Which events are of these times, and about locks."""
    found = np.zeros(len(events), np.bool_)
    low, high = np.searchsorted(events["time"], (since, until))
    found[low:high] = events["kind"][low:high] > Kind.SAMPLE
    return found


def _last_of(key: npt.NDArray[Any], rows: Rows) -> Rows:
    """The last of the `rows` of each key, -1 for none; `key` is per row."""
    last = np.full(int(key.max(initial=0)) + 1, -1)
    # Of several values for one index, numpy keeps the last.
    last[key[rows]] = rows
    return last

"""Gather quiet holds: of a long recording, millions of holds become some thousands.

A hold is *quiet* if nothing else happened to a GIL of its process between its acquire and its release, and it was had
without a wait. Quiet holds of one GIL that come one after the other make a *stretch*: within it nobody begins to wait,
gets the GIL after a wait, asks for it or looks at its holder, and no context switch is. Of each stretch the first and
the last hold stay as they are. Those between become one hold for each thread, core, and pair of stacks at the release
before and at its own: as long as they all were together, and after it comes the time after each of them until somebody
had the GIL again. So sums of any kind stay what they were to the ns, of what threads waited meanwhile too; no hold
overlaps another one, and no thread runs or rests for longer than it did. Only where within the stretch it all happened
is lost, and how often: that is counted (`GATHERED`).

A stretch is cut where a step of the recording's time ends, so that what changes in the course of time still does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording.density import Density
from giltrace.recording.events import GATHERED, GIL_EVENT, HAND_OFF, Array
from giltrace.recording.layout import Kind
from giltrace.recording.order import joined, stable_order

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

#: Of a recording with more bytes of records (8 each), quiet holds are gathered for its figures, which would take many
#: seconds, and for its trace, of which there would be more than a browser can hold.
MOST_BYTES = 6 << 20
#: A recording is cut into so many steps, none shorter than the other (ns): what pages and phases show is coarser.
_STEPS = 1 << 17
_SHORTEST_STEP_NS = 1_000_000
#: Fewer holds than this are no stretch that is worth it: its first and its last one stay.
_FEWEST = 4
# A GIL and a length of time in one number: a stretch is no longer than a step.
_GIL_SHIFT = 48


class Edges(NamedTuple):
    """What no stretch reaches across: the times (ns, sorted) of `switches`, and each `step` from `origin` on.

    In the times of `whole`, [start, end) in ns, no hold is quiet: every one of them is asked for.
    """

    switches: Ints
    origin: int
    step: int
    whole: Sequence[tuple[int, int]] = ()

    @classmethod
    def of(cls, switches: Ints, start: int, end: int, whole: Sequence[tuple[int, int]] = ()) -> Edges:
        """Those of a recording that lasted from `start` to `end`."""
        return cls(switches, start, max((end - start) // _STEPS, _SHORTEST_STEP_NS), whole)

    def before(self, time: Ints) -> Bools:
        """Whether an edge lies between each of these sorted times and the one before it."""
        marked = np.zeros(len(time) + 1, np.bool_)
        first, last = np.searchsorted(self.switches, (time[0], time[-1] + 1))
        marked[np.searchsorted(time, self.switches[first:last])] = True
        steps = np.arange((time[0] - self.origin) // self.step, (time[-1] - self.origin) // self.step + 1)
        marked[np.searchsorted(time, steps * self.step + self.origin)] = True
        marked[np.searchsorted(time, np.array(self.whole, np.int64).ravel())] = True
        return marked[:-1]


class Gatherer:
    """Gathers the quiet holds of one file, whose events come in pieces, each sorted by time and none before the last.

    `gathered` (dtype `GATHERED`) tells what the holds that were made stand for, `hand_offs` (dtype `HAND_OFF`) how long
    it took from one quiet hold to that of another thread. Where a `density` is given, it counts what is left; of too
    much, nothing is returned.
    """

    def __init__(self, edges: Edges, density: Density | None = None) -> None:
        self.edges = np.empty(0, GIL_EVENT)  # it leaves the first and the last event of each thread
        self._edges, self._density = edges, density
        self._rest: Array | None = None
        # Of each thread: whether it had an event, whether it waits, and the stack of its last release.
        self._known, self._waiting = np.zeros((2, 0), np.bool_)
        self._stack = np.zeros(0, np.int32)
        self._gathered: list[Array] = []
        # What `_hand_on` has counted: each GIL and length of time as one number, and how often.
        self._passed, self._times = np.zeros((2, 0), np.int64)

    def feed(self, events: Array, *, last: bool = False) -> Array:
        """Return the events that are left of this piece (dtype `GIL_EVENT`), and of what was kept from the one before.

        The piece is written to.
        What a hold begins with that has not ended is kept for the next piece, unless this is the `last`.
        """
        left = self._feed(events, last=last)
        if self._density is not None:
            self._density.add(left["time"])
            if self._density.too_many:
                self._gathered.clear()
                # No slice of them, which would keep them all.
                return np.empty(0, GIL_EVENT)
        return left

    def _feed(self, events: Array, *, last: bool) -> Array:
        if self._rest is not None:
            events = joined([self._rest, events], GIL_EVENT)
        # Ends between two holds, if it can: an acquire is never cut off from the release that comes right after it.
        keep = not last and len(events) > 0 and events["kind"][-1] == Kind.ACQUIRE
        self._rest = events[-1:].copy() if keep else None
        events = events[:-1] if keep else events
        if len(events) == 0:
            return events
        edge = self._edges.before(events["time"])
        fresh, led, before = self._see(events)
        if self._density is not None:
            self._density.add_waits(events, led)
        kind, thread = events["kind"], events["thread"]
        quiet = (kind[:-1] == Kind.ACQUIRE) & (kind[1:] == Kind.RELEASE) & (thread[:-1] == thread[1:])
        quiet &= (
            (events["gil"][:-1] == events["gil"][1:]) & (events["flags"][1:] == 0) & ~fresh[:-1] & ~led[:-1] & ~edge[1:]
        )
        for start, end in self._edges.whole:
            # With the one that begins before it and ends in it, or after.
            low, high = np.searchsorted(events["time"], (start, end))
            quiet[max(low - 1, 0) : high] = False
        return self._replaced(events, np.flatnonzero(quiet), edge, before)

    @property
    def gathered(self) -> Array:
        """One row for each hold that stands for others, in order of time."""
        return np.concatenate([np.empty(0, GATHERED), *self._gathered])

    @property
    def hand_offs(self) -> Array:
        """One row for each GIL and length of time."""
        rows = np.empty(len(self._passed), HAND_OFF)
        rows["gil"], rows["ns"] = self._passed >> _GIL_SHIFT, self._passed & ((1 << _GIL_SHIFT) - 1)
        rows["count"] = self._times
        return rows

    def _see(self, events: Array) -> tuple[Bools, Bools, npt.NDArray[np.int32]]:
        """Say for each event whether it is its thread's first, whether it ends a wait, and the last release's stack.

        What the last events of the threads were is noted.
        """
        self._make_room(int(events["thread"].max()) + 1)
        order = stable_order(events["thread"], len(self._known))
        kind, thread = events["kind"][order], events["thread"][order]
        head = np.flatnonzero(np.append(True, thread[1:] != thread[:-1]))
        asks = (kind == Kind.REQUEST) | (kind == Kind.TIMEOUT) | (kind == Kind.SAMPLE)
        waited, first = np.append(False, asks[:-1]), np.zeros(len(kind), np.bool_)
        waited[head], first[head] = self._waiting[thread[head]], ~self._known[thread[head]]
        release = np.maximum.accumulate(np.where(kind == Kind.RELEASE, np.arange(len(kind)), -1))
        since = np.repeat(head, np.diff(head, append=len(kind)))
        until = np.append(-1, release[:-1])
        stack = np.where(until >= since, events["stack"][order[until]], self._stack[thread])
        tail = np.append(head[1:], len(kind)) - 1
        self._known[thread[head]] = True
        self._waiting[thread[head]] = asks[tail]
        given = release[tail] >= head
        self._stack[thread[head[given]]] = events["stack"][order[release[tail[given]]]]
        fresh, led, before = np.empty_like(first), np.empty_like(first), np.empty(len(kind), np.int32)
        fresh[order], led[order], before[order] = first, waited & ~asks, stack
        return fresh, led, before

    def _make_room(self, threads: int) -> None:
        more = max(threads - len(self._known), 0)
        self._known, self._waiting = (np.append(old, np.zeros(more, np.bool_)) for old in (self._known, self._waiting))
        self._stack = np.append(self._stack, np.zeros(more, np.int32))

    def _replaced(self, events: Array, at: Ints, edge: Bools, before: npt.NDArray[np.int32]) -> Array:
        """The events with the quiet holds that begin `at` these gathered; `edge` and `before` are per event.

        They are written to.
        """
        found = _between(at, edge, events["gil"][at])
        if len(found.hold) == 0:
            return events
        # `take` moves whole rows, an index of them each field by itself: ten times slower.
        taken, given = events.take(found.hold), events.take(found.hold + 1)
        sums = self._summed(found, taken, given, events.take(found.earlier + 1), events.take(found.later), before)
        start, into = _laid_out(found, sums, taken["time"])
        left = np.ones(len(events), np.bool_)
        left[found.hold] = left[found.hold + 1] = False
        left[into] = left[into + 1] = True
        taken, given = taken.take(sums.last), given.take(sums.last)
        taken["time"], given["time"] = start, start + sums.held
        events[into], events[into + 1] = taken, given
        rows = np.empty(len(into), GATHERED)
        rows["start"], rows["end"], rows["thread"] = start, start + sums.held, taken["thread"]
        rows["count"], rows["longest"], rows["hand_offs"] = sums.number, sums.longest, sums.hand_offs
        rows["before"] = before[found.hold[sums.last]]
        self._gathered.append(rows)
        remaining: Array = events.take(np.flatnonzero(left))
        return remaining

    def _summed(
        self, found: _Between, taken: Array, given: Array, earlier: Array, later: Array, before: npt.NDArray[np.int32]
    ) -> _Sums:
        """Add up what becomes one hold, and count the hand-offs.

        The events are those that begin and end each hold, and the release before and the acquire after it.
        """
        held, rested = given["time"] - taken["time"], later["time"] - given["time"]
        passed = earlier["thread"] != taken["thread"]
        # That to the last one of a stretch, which is not gathered, counts as from the one before it.
        on = found.ends & (later["thread"] != taken["thread"])
        self._hand_on(taken["gil"], taken["time"] - earlier["time"], passed)
        self._hand_on(taken["gil"], rested, on)
        key = _groups(found.stretch, taken, before[found.hold], given["stack"])
        order = np.argsort(key, kind="stable")
        first = np.flatnonzero(np.append(True, np.diff(key[order]) != 0))
        last = order[np.append(first[1:], len(order)) - 1]
        # A thread's last one is the one that it had last: what it does next, it does from there.
        by_last = np.argsort(last)

        def total(column: npt.NDArray[Any], how: np.ufunc = np.add) -> Ints:
            summed: Ints = how.reduceat(column[order].astype(np.int64), first)[by_last]
            return summed

        number = np.diff(first, append=len(order))[by_last]
        hand_offs = total(passed) + total(on)
        return _Sums(last[by_last], total(held), total(rested), number, total(held, np.maximum), hand_offs)

    def _hand_on(self, gil: npt.NDArray[Any], latency: Ints, chosen: Bools) -> None:
        """Count the hand-offs that were `chosen`, of each GIL by how long they took."""
        passed = gil[chosen].astype(np.int64) << _GIL_SHIFT | latency[chosen]
        each, times = np.unique(passed, return_counts=True)
        known, at = np.unique(np.append(self._passed, each), return_inverse=True)
        counts = np.zeros(len(known), np.int64)
        np.add.at(counts, at.ravel(), np.append(self._times, times))
        self._passed, self._times = known, counts


class _Between(NamedTuple):
    """The quiet holds that are neither the first nor the last of their `stretch`, which is a number.

    `hold` is where each begins among the events, `earlier` and `later` where the one before and after it in its stretch
    do; `ends` says that the latter is the last one.
    """

    hold: Ints
    earlier: Ints
    later: Ints
    ends: Bools
    stretch: Ints


def _between(at: Ints, edge: Bools, gil: npt.NDArray[Any]) -> _Between:
    """Sort the quiet holds that begin `at` these into stretches; `edge` is per event, `gil` per hold."""
    if len(at) < _FEWEST:
        at = gil = at[:0]
    fresh = np.ones(len(at), np.bool_)
    fresh[1:] = (np.diff(at) != 2) | edge[at[1:]] | (gil[1:] != gil[:-1])
    head = np.flatnonzero(fresh)
    size = np.diff(head, append=len(at))
    stretch = np.repeat(np.arange(len(head)), size)
    within, size = np.arange(len(at)) - head[stretch], size[stretch]
    row = np.flatnonzero((size >= _FEWEST) & (within > 0) & (within < size - 1))
    return _Between(at[row], at[row - 1], at[row + 1], within[row] == size[row] - 2, stretch[row])


class _Sums(NamedTuple):
    """What becomes one hold, a row each, in the order of the `last` of those that it stands for: its row in `_Between`.

    They `held` for so long together, and so long passed after them until somebody had the GIL again (`rested`).
    """

    last: Ints
    held: Ints
    rested: Ints
    number: Ints
    longest: Ints
    hand_offs: Ints


def _laid_out(found: _Between, sums: _Sums, begin: Ints) -> tuple[Ints, Ints]:
    """When each of the new holds begins, and in the place of which event; `begin` is per hold of `found`.

    Those of a stretch come one after the other, each with its rest, from where the first of those between began.
    """
    stretch = found.stretch[sums.last]
    fresh = np.append(True, np.diff(stretch) != 0)
    new, number = np.flatnonzero(fresh), np.cumsum(fresh) - 1
    first = np.searchsorted(found.stretch, stretch[new])[number]
    slot = sums.held + sums.rested
    passed = np.cumsum(slot) - slot
    start = begin[first] + passed - passed[new][number]
    into = found.hold[first] + 2 * (np.arange(len(stretch)) - new[number])
    return start, into


def _groups(stretch: Ints, taken: Array, before: npt.NDArray[np.int32], stack: npt.NDArray[np.int32]) -> Ints:
    """A number for each hold: equal for those of one stretch, thread, core, and stacks before and at the end."""
    groups: Ints = stretch
    for high, low in ((taken["thread"], stack), (taken["arg"], before)):
        kinds, code = np.unique(high.astype(np.int64) << 32 | low.astype(np.int64), return_inverse=True)
        groups = groups * len(kinds) + code.ravel()
    return groups

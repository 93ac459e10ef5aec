"""Match the native tracer's records of one process into holds, waits and switch requests.

Records may be missing (lost, torn by a kill, begun in the middle of a life). Whatever can still be said is
said, marked `Flag.PARTIAL_START` or `Flag.PARTIAL_END`; what not even the loss on record explains is put into words.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording.layout import COLLECTING, NO_CORE, Kind, RecordFlag, RequestFlag
from giltrace.recording.order import stable_order
from giltrace.timeline.axis import NEVER, Bools, Ints
from giltrace.timeline.model import HOLD, SAMPLE, SWITCH_REQUEST, WAIT, Array, Flag, Thread

_ACQUIRE, _RELEASE, _REQUEST, _TIMEOUT = (
    np.uint8(kind) for kind in (Kind.ACQUIRE, Kind.RELEASE, Kind.REQUEST, Kind.TIMEOUT)
)
_NOTHING = np.uint8(Kind.NONE)
#: So many holds are made at a time.
_PIECE = 1 << 18


class Usage(NamedTuple):
    """How the threads of one process used its GILs; `violations` say what more lacks than was lost.

    `hold_stacks`, `request_stacks` and `sample_stacks` (int32, one per hold, switch request and sample) number the
    stack at the release and those of the holder that were sampled, `wait_stacks` the newest of the waiter's own by the
    time that it asked; -1 where there is none.
    """

    holds: Array
    waits: Array
    switch_requests: Array
    violations: tuple[str, ...]
    hold_stacks: npt.NDArray[np.int32]
    request_stacks: npt.NDArray[np.int32]
    samples: Array
    sample_stacks: npt.NDArray[np.int32]
    wait_stacks: npt.NDArray[np.int32]


class _Steps:
    """The records in the order (thread, GIL, time), without the timed-out waits that are only counted.

    `event` is the index of the record among the `events`; `before` and `after` are the kinds of the neighbours of the
    same thread and GIL. `orphan` marks a timed-out wait whose request is missing: it stands in for the request.
    `timeouts` (one for each request) counts those until the next step.
    """

    def __init__(self, events: Array, threads: int, gils: int) -> None:
        key = events["thread"].astype(np.int64) * gils + events["gil"] if gils > 1 else events["thread"]
        key = key.astype(np.min_scalar_type(threads * gils))
        # Those that are no steps come last.
        others = events["kind"] >= Kind.THREAD_END
        key[others] = threads * gils
        order = stable_order(key, threads * gils + 1)[: len(key) - np.count_nonzero(others)]
        key, kind = key.take(order), events["kind"].take(order)
        goes_on = key[1:] == key[:-1]
        timeout = kind == _TIMEOUT
        orphan = np.zeros(len(kind), np.bool_)
        timeouts = np.flatnonzero(timeout)
        if len(timeouts):
            previous = _before(kind, goes_on)[timeouts]
            orphan[timeouts] = (previous != _REQUEST) & (previous != _TIMEOUT)
            step = np.flatnonzero(~timeout | orphan)
            order, kind, key, orphan = order.take(step), kind.take(step), key.take(step), orphan.take(step)
            kind[orphan] = _REQUEST
            goes_on = key[1:] == key[:-1]
        else:
            step = np.arange(len(kind))
        self.events = events
        self.event = order
        self.kind = kind
        self.orphan = orphan
        requests = np.flatnonzero(kind == _REQUEST)
        # What lies between two steps is counted only.
        self.timeouts: Ints = np.append(step, len(timeout))[requests + 1] - step[requests] - 1 + orphan[requests]
        self.before = _before(kind, goes_on)
        self.after = np.append(np.where(goes_on, kind[1:], _NOTHING), _NOTHING)[: len(kind)]

    def time(self, step: Ints) -> Ints:
        """When these steps were made."""
        time: Ints = self.events["time"][self.event[step]]
        return time


def _before(kind: npt.NDArray[np.uint8], goes_on: Bools) -> npt.NDArray[np.uint8]:
    """The kind of the step before each one, if the same thread and GIL `goes_on` there."""
    return np.append(_NOTHING, np.where(goes_on, kind[:-1], _NOTHING))[: len(kind)]


class _Matcher:
    def __init__(self, events: Array, threads: Sequence[Thread], gils: int, origin: int) -> None:
        self.events = events
        self.threads = threads
        self.gils = gils
        self.origin = origin
        self.thread_start = np.array([t.start for t in threads], np.int64)
        self.thread_end = np.array([t.end for t in threads], np.int64)
        self.steps = _Steps(events, len(threads), gils)
        self.violations: list[str] = []
        self.missing = 0  # records that lack

    @cached_property
    def turns(self) -> npt.NDArray[np.intp]:
        """The records that are an acquire or a release."""
        return np.flatnonzero((self.events["kind"] == _ACQUIRE) | (self.events["kind"] == _RELEASE))

    def complain(self, what: str, event: Ints | npt.NDArray[np.intp]) -> None:
        """Put a broken rule into words: how often, and where first."""
        if len(event) == 0:
            return
        self.missing += len(event)
        first = self.events[int(event.min())]
        thread = self.threads[int(first["thread"])]
        after = (int(first["time"]) - self.origin) / 1e9
        self.violations.append(
            f"{what}: {len(event)} (first: thread {thread.name!r}, tid {thread.tid}, {after:.9f} s after the start)"
        )

    def holds(self, lost: int) -> tuple[Array, Ints, npt.NDArray[np.int32]]:
        """All holds in step order, the step that each of them began with, and the holds' stacks."""
        steps = self.steps
        acquire = steps.kind == _ACQUIRE
        closed = acquire & (steps.after == _RELEASE)
        if lost:
            whole = np.flatnonzero(closed)
            closed[whole] = self._neighbours(steps.event[whole])[1] == steps.event[whole + 1]
        begins = steps.kind == _RELEASE
        begins[1:] &= ~closed[:-1]
        begins |= acquire
        row = np.flatnonzero(begins)
        known, complete = acquire[row], closed[row]
        holds, stacks = np.empty(len(row), HOLD), np.empty(len(row), np.int32)
        for at in range(0, len(row), _PIECE):
            own = slice(at, at + _PIECE)
            self._fill(holds[own], stacks[own], row[own], known[own], complete[own])
        if not complete.all():
            self._mend(holds, row, np.flatnonzero(known & ~complete), np.flatnonzero(~known))
        return holds, row, stacks

    def _fill(self, holds: Array, stacks: npt.NDArray[np.int32], row: Ints, known: Bools, complete: Bools) -> None:
        """Say of some holds what their records do: of these the step `row` is an acquire if it is `known`, and what
        comes next the release if they are `complete`.
        """
        # `take` moves whole rows, an index of them each field by itself: ten times slower.
        begun = self.events.take(self.steps.event[row])
        holds["thread"], holds["gil"], core = begun["thread"], begun["gil"], begun["arg"]
        holds["core"] = np.where(known & (core != NO_CORE), core, 0).astype(np.int16)
        holds["core"][~known | (core == NO_CORE)] = -1
        holds["start"] = begun["time"]
        ended = self.events.take(self.steps.event[row + complete])
        holds["end"] = ended["time"]
        released = ended["flags"] & np.uint8(RecordFlag.FORCED)
        holds["flags"] = np.where(complete | ~known, released * np.uint8(Flag.FORCED), 0)
        stacks[:] = np.where(complete | ~known, ended["stack"], -1)

    def _mend(self, holds: Array, row: Ints, open_: Ints, headless: Ints) -> None:
        """End holds without a release (`open_`) and begin those without an acquire (`headless`)."""
        steps = self.steps
        event = steps.event[row[open_]]
        follows = steps.after[row[open_]] != _NOTHING
        own = np.where(follows, steps.time(np.minimum(row[open_] + 1, len(steps.kind) - 1)), NEVER)
        elsewhere = self._next_elsewhere(event)
        _, later = self._neighbours(event)
        later_time = self._time_of(later, NEVER)
        end = np.minimum(np.minimum(own, elsewhere), later_time)
        holds["end"][open_] = np.maximum(
            np.minimum(end, self.thread_end[holds["thread"][open_]]), holds["start"][open_]
        )
        holds["flags"][open_] |= np.uint8(Flag.PARTIAL_END)
        # An interpreter that ends takes the GIL that it holds with it: the thread goes on with another one.
        lost = (elsewhere == NEVER) & (follows | (later_time < NEVER))
        self.complain("holds without a release", event[lost])

        event_l = steps.event[row[headless]]
        preceded = steps.before[row[headless]] != _NOTHING
        lower = np.where(
            preceded, steps.time(np.maximum(row[headless] - 1, 0)), self.thread_start[holds["thread"][headless]]
        )
        earlier, _ = self._neighbours(event_l)
        bound = self._time_of(earlier, -NEVER)
        # The GIL's last known hold began but never ended on record: this one begins where that one was cut.
        by_event = np.argsort(event)
        at = np.minimum(np.searchsorted(event, earlier, sorter=by_event), max(len(event) - 1, 0))
        if len(event):
            cut = event[by_event[at]] == earlier
            bound = np.where(cut, holds["end"][open_][by_event[at]], bound)
        start = np.minimum(np.maximum(lower, bound), holds["end"][headless])
        holds["start"][headless] = start
        holds["flags"][headless] |= np.uint8(Flag.PARTIAL_START)
        self.complain("releases without an acquire", event_l[preceded | (earlier >= 0)])

    def _time_of(self, event: Ints, missing: np.int64 | int) -> Ints:
        return np.where(event >= 0, self.events["time"][np.maximum(event, 0)], missing).astype(np.int64)

    def _neighbours(self, event: npt.NDArray[np.intp]) -> tuple[Ints, Ints]:
        """The last acquire or release of the same GIL before each event, and the first after it; -1 if none."""
        before = np.full(len(event), -1, np.int64)
        after = np.full(len(event), -1, np.int64)
        if len(event) == 0:
            return before, after
        gil, turns = self.events["gil"], self.turns
        for one in np.unique(gil[event]):
            own = turns[gil[turns] == one] if self.gils > 1 else turns
            where = np.flatnonzero(gil[event] == one)
            at = np.searchsorted(own, event[where])
            before[where] = np.where(at > 0, own[np.maximum(at - 1, 0)], -1)
            after[where] = np.where(at + 1 < len(own), own[np.minimum(at + 1, len(own) - 1)], -1)
        return before, after

    def _next_elsewhere(self, event: npt.NDArray[np.intp]) -> Ints:
        """When the thread of each event went on with a different GIL, if that is what it did next; else NEVER."""
        found = np.full(len(event), NEVER, np.int64)
        if self.gils == 1 or len(event) == 0:
            return found
        usual = np.flatnonzero(self.events["kind"] < Kind.THREAD_END)
        thread = self.events["thread"][usual].astype(np.int64)
        order = stable_order(thread, len(self.threads))
        size = len(self.events)
        place = thread[order] * size + usual[order]
        own = self.events["thread"][event].astype(np.int64)
        at = np.searchsorted(place, own * size + event) + 1
        inside = at < len(order)
        following = usual[order[np.minimum(at, len(order) - 1)]]
        other = inside & (self.events["thread"][following] == own)
        other &= self.events["gil"][following] != self.events["gil"][event]
        return np.where(other, self.events["time"][following], found)

    def waits(self, holds: Array, row: Ints) -> tuple[Array, npt.NDArray[np.int32]]:
        """All waits of non-zero length, and their stacks, sorted by start.

        `row` is the step that each hold began with.
        """
        steps = self.steps
        at = np.flatnonzero(steps.kind == _REQUEST)
        event = steps.event[at]
        after = steps.after[at]
        following = np.minimum(at + 1, max(len(steps.kind) - 1, 0))
        waits = np.empty(len(at), WAIT)
        waits["thread"] = self.events["thread"][event]
        waits["gil"] = self.events["gil"][event]
        waits["timeouts"] = steps.timeouts
        waits["start"] = steps.time(at)
        waits["end"] = steps.time(following)
        waits["hold"] = np.where(
            (after == _ACQUIRE) | (after == _RELEASE), np.searchsorted(row, following, "right") - 1, -1
        )
        waits["flags"] = np.where(after == _ACQUIRE, 0, np.uint8(Flag.PARTIAL_END))
        under_way = (steps.kind[at] == _REQUEST) & ~steps.orphan[at]
        under_way &= (self.events["flags"][event] & np.uint8(RequestFlag.UNDER_WAY)) != 0
        waits["flags"][under_way] |= np.uint8(Flag.PARTIAL_START)
        acquired_unseen = after == _RELEASE
        waits["end"][acquired_unseen] = holds["start"][waits["hold"][acquired_unseen]]
        self._mend_waits(waits, at, event, after)
        some = np.flatnonzero(waits["end"] > waits["start"])
        some = some[np.argsort(waits["start"][some], kind="stable")]
        # `take` moves whole rows, an index of them each field by itself: ten times slower.
        return waits.take(some), self.events["stack"][event[some]].astype(np.int32)

    def _mend_waits(self, waits: Array, at: Ints, event: npt.NDArray[np.intp], after: npt.NDArray[np.uint8]) -> None:
        """End waits that never led to the GIL and begin those whose request is missing."""
        steps = self.steps
        unfinished = after == _NOTHING
        if unfinished.any():
            elsewhere = self._next_elsewhere(event[unfinished])
            end = np.minimum(elsewhere, self.thread_end[waits["thread"][unfinished]])
            waits["end"][unfinished] = np.maximum(end, waits["start"][unfinished])
            self.complain("requests without an acquire", event[unfinished][elsewhere < NEVER])
        self.complain("requests without an acquire", event[after == _REQUEST])
        orphan = steps.orphan[at]
        if orphan.any():
            first = orphan & (steps.before[at] == _NOTHING)
            if self.gils == 1:
                waits["start"][first] = self.thread_start[waits["thread"][first]]
            waits["flags"][orphan] |= np.uint8(Flag.PARTIAL_START)
            self.complain("timed-out waits without a request", event[orphan & ~first])


def match(events: Array, threads: Sequence[Thread], gils: int, origin: int, lost: int = 0) -> Usage:
    """Match records (dtype `GIL_EVENT`, sorted by time) into holds and waits, each sorted by start.

    `threads` are the threads that `events` index, with their lifetimes; `gils` is one more than the largest GIL
    id; `origin` is the instant that violations are told relative to; `lost` is how many records are known to lack. If
    there are such, a hold that spans another thread's use of the same GIL is taken for two holds whose middle was lost;
    otherwise it stands, and breaks an invariant.
    """
    if len(events) == 0:
        none = np.empty(0, np.int32)
        waits, requests, samples = np.empty(0, WAIT), np.empty(0, SWITCH_REQUEST), np.empty(0, SAMPLE)
        return Usage(np.empty(0, HOLD), waits, requests, (), none, none, samples, none, none)
    asks = (events["kind"] == _TIMEOUT) & ((events["flags"] & np.uint8(RecordFlag.SWITCH_REQUEST)) != 0)
    asking, looks = events[asks], events[events["kind"] == Kind.SAMPLE]
    requests, samples = np.empty(len(asking), SWITCH_REQUEST), np.empty(len(looks), SAMPLE)
    for name in ("time", "thread", "gil"):
        requests[name], samples[name] = asking[name], looks[name]
    samples["collecting"] = looks["arg"] & COLLECTING

    matcher = _Matcher(events, threads, gils, origin)
    holds, row, stacks = matcher.holds(lost)
    waits, wait_stacks = matcher.waits(holds, row)
    del matcher.steps, row
    order = np.argsort(holds["start"], kind="stable")
    position = np.empty(len(order), np.int64)
    position[order] = np.arange(len(order))
    led = waits["hold"] >= 0
    waits["hold"][led] = position[waits["hold"][led]]
    told = tuple(matcher.violations) if matcher.missing > lost else ()
    of_holders = asking["stack"], samples, looks["stack"]
    return Usage(holds.take(order), waits, requests, told, stacks[order], *of_holders, wait_stacks)


def usable(events: Array, threads: int) -> tuple[Array, Bools, tuple[str, ...]]:
    """Leave out records that make no sense and put the rest in order of time.

    Returns the events, which threads wrote a record of their end (bool per thread), and the damage in words.
    """
    problems = []
    known = (events["kind"] >= Kind.REQUEST) & (events["kind"] <= Kind.THREAD_END)
    known |= (events["kind"] >= Kind.SAMPLE) & (events["kind"] <= Kind.POSTED)
    good = known & (events["thread"] < threads)
    if not good.all():
        problems.append(f"unreadable records: {int((~good).sum())}")
        events = events[good]
    backwards = int(np.count_nonzero(events["time"][1:] < events["time"][:-1]))
    if backwards:
        problems.append(f"records out of order of time: {backwards}")
        events = events[np.argsort(events["time"], kind="stable")]
    ended = np.zeros(threads, np.bool_)
    ended[events["thread"][events["kind"] == Kind.THREAD_END]] = True
    return events, ended, tuple(problems)

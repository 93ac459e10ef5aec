"""What one process did with its GILs between two polls: its records matched, what is under way carried over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.attribution import Shares, attribute
from giltrace.analysis.measure.intervals import requested_holds
from giltrace.recording.events import GIL_EVENT, Array
from giltrace.recording.layout import NO_CORE, Kind
from giltrace.timeline.axis import NEVER, Bools, Ints
from giltrace.timeline.holds import match
from giltrace.timeline.model import RUN, STATE, Flag, Process, Thread

_TURNS = (Kind.REQUEST, Kind.ACQUIRE, Kind.RELEASE)
# What comes after the stack that its thread stands in.
_TOLD = (Kind.REQUEST, Kind.RELEASE, Kind.SLEPT)


@dataclass(frozen=True)
class Usage:
    """The stretch from `start` to `end` of one process.

    `threads` are the tracer's numbers of the threads that did something; what indexes threads counts in them. `holds`
    and `waits` (dtypes `HOLD` and `WAIT`) are cut to the stretch; `waited` (one per wait) is how long each took so far
    in all; `fresh_holds`, `fresh_waits` mark those that were not under way before. `hold_stack` (one per hold, the
    tracer's number, -1 if unknown) stands for what the holder did: what a waiter read when it asked, else where it
    stood at the release. `stack` and `core` (one per thread) are the newest known, -1 if there is none.
    """

    start: int
    end: int
    threads: Ints
    ended: Bools
    gils: int
    holds: Array
    waits: Array
    waited: Ints
    fresh_holds: Bools
    fresh_waits: Bools
    hold_stack: npt.NDArray[np.int32]
    stack: npt.NDArray[np.int32]
    core: Ints

    def blame(self, culprit: Ints) -> Shares:
        """Attribute the waits of each thread to the holds that they overlap, which are of the classes `culprit`."""
        return attribute(self._process(), self.waits["thread"].astype(np.int64), culprit)

    def _process(self) -> Process:
        return as_process(self.holds, self.waits, self.gils)


def as_process(holds: Array, waits: Array, gils: int, requests: Array | None = None) -> Process:
    """Just enough of a process for the analyses of holds and waits."""
    return Process(
        pid=0,
        ppid=0,
        python="",
        cmdline="",
        start=0,
        end=0,
        threads=(),
        gils=gils,
        holds=holds,
        waits=waits,
        switch_requests=requests if requests is not None else np.empty(0, [("time", "<i8"), ("gil", "<u2")]),
        runs=np.empty(0, RUN),
        states=np.empty(0, STATE),
        has_sched=False,
    )


class Matcher:
    """Matches the records of one process as they come; `since` is when its first stretch begins.

    `under_way` (dtype `GIL_EVENT`) has the acquire or request of each thread that holds or waits at the end of the last
    stretch.
    """

    def __init__(self, since: int) -> None:
        self.end = since
        self.under_way = np.empty(0, GIL_EVENT)

    def take(self, events: Array, until: int) -> Usage:
        """The stretch up to `until`, with the new `events` (dtype `GIL_EVENT`, sorted by time)."""
        start, self.end = self.end, max(until, self.end)
        late = len(self.under_way) and len(events) and events["time"][0] < self.under_way["time"].max()
        whole = np.concatenate([self.under_way, events])
        if late:
            whole = whole.take(np.argsort(whole["time"], kind="stable"))
        threads, index = np.unique(whole["thread"], return_inverse=True)
        whole["thread"] = index.ravel()
        carried = np.full(len(threads), NEVER)
        carried[np.searchsorted(threads, self.under_way["thread"])] = self.under_way["time"]
        ended_at = np.full(len(threads), self.end)
        is_end = whole["kind"] == Kind.THREAD_END
        ended_at[whole["thread"][is_end]] = whole["time"][is_end]
        ended = np.zeros(len(threads), np.bool_)
        ended[whole["thread"][is_end]] = True
        usage = self._match(whole, threads, carried, ended_at, ended, start)
        self._carry(whole, threads, ended)
        return usage

    def _match(
        self, whole: Array, threads: npt.NDArray[np.uint32], carried: Ints, ended_at: Ints, ended: Bools, start: int
    ) -> Usage:
        gils = int(whole["gil"].max(initial=0)) + 1
        people = [Thread(0, "", start, int(end)) for end in ended_at]
        matched = match(whole, people, gils, start)
        holds, waits = matched.holds, matched.waits
        old_hold = holds["start"] == carried[holds["thread"]]
        # One that began with the stretch took no time in the last one and was not told there.
        old_wait = (waits["start"] == carried[waits["thread"]]) & (waits["start"] < start)
        waited = (waits["end"] - waits["start"]).astype(np.int64)
        # A request may become visible late: only what was under way has been counted up to `start`.
        for rows, old in ((holds, old_hold), (waits, old_wait)):
            rows["start"] = np.where(old, np.maximum(rows["start"], start), rows["start"])
            rows["end"] = np.clip(rows["end"], rows["start"], max(self.end, start))
        holding = as_process(holds, waits, gils, matched.switch_requests)
        stack, asked = matched.hold_stacks.copy(), requested_holds(holding)
        sampled = np.flatnonzero((asked >= 0) & (matched.request_stacks >= 0))
        newest, core = _newest(whole, len(threads), holds["thread"][asked[sampled]], matched.request_stacks[sampled])
        # Of several requests to one hold the first counts: it is assigned last.
        stack[asked[sampled[::-1]]] = matched.request_stacks[sampled[::-1]]
        return Usage(
            start=start,
            end=self.end,
            threads=threads.astype(np.int64),
            ended=ended,
            gils=gils,
            holds=holds,
            waits=waits,
            waited=waited,
            fresh_holds=~old_hold,
            fresh_waits=~old_wait,
            hold_stack=stack,
            stack=newest,
            core=core,
        )

    def _carry(self, whole: Array, threads: npt.NDArray[np.uint32], ended: Bools) -> None:
        """Keep what is under way: of each thread the last turn, if it is not a release."""
        turns = np.flatnonzero(np.isin(whole["kind"], _TURNS))
        last = np.full(len(threads), -1, np.int64)
        last[whole["thread"][turns]] = turns
        rows = whole[last[(last >= 0) & ~ended]]
        rows = rows[rows["kind"] != Kind.RELEASE]
        rows["thread"] = threads[rows["thread"]]
        self.under_way = rows[np.argsort(rows["time"], kind="stable")]


def _newest(
    whole: Array, threads: int, holder: npt.NDArray[np.uint32], sample: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[np.int32], Ints]:
    """Where each thread was seen last (by itself, or as `sample` of a `holder`), and on which core."""
    stack, core = np.full(threads, -1, np.int32), np.full(threads, -1, np.int64)
    told = np.isin(whole["kind"], _TOLD) & (whole["stack"] >= 0)
    # Of several values for one index, numpy keeps the last.
    stack[whole["thread"][told]] = whole["stack"][told]
    turns = np.isin(whole["kind"], _TURNS)
    last = np.zeros(threads, np.uint8)
    last[whole["thread"][turns]] = whole["kind"][turns]
    holds_now = last[holder] == Kind.ACQUIRE
    stack[holder[holds_now]] = sample[holds_now]
    acquired = (whole["kind"] == Kind.ACQUIRE) & (whole["arg"] != NO_CORE)
    core[whole["thread"][acquired]] = whole["arg"][acquired]
    return stack, core


def forced(holds: Array) -> Bools:
    """Which holds ended with a forced release."""
    marked: Bools = (holds["flags"] & np.uint8(Flag.FORCED)) != 0
    return marked


def whole_holds(holds: Array) -> Bools:
    """Which holds have ended."""
    ended: Bools = (holds["flags"] & np.uint8(Flag.PARTIAL_END)) == 0
    return ended

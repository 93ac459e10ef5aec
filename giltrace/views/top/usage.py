"""What one process did with its GILs between two polls: its records matched, what is under way carried over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.attribution import Shares, attribute
from giltrace.analysis.measure.intervals import hold_at
from giltrace.analysis.measure.stretches import Stretches, stretches
from giltrace.recording.events import FRAME, GIL_EVENT, Array, StackTable
from giltrace.recording.layout import NO_CORE, Kind
from giltrace.timeline.axis import NEVER, Bools, Ints
from giltrace.timeline.holds import Usage as Matched
from giltrace.timeline.holds import match
from giltrace.timeline.model import RUN, STATE, Flag, Process, Stacks, Thread
from giltrace.timeline.stacks import begins

Numbers = npt.NDArray[np.int32]

_TURNS = (Kind.REQUEST, Kind.ACQUIRE, Kind.RELEASE)
# What comes after the stack that its thread stands in.
_TOLD = (Kind.REQUEST, Kind.RELEASE, Kind.SLEPT)


@dataclass(frozen=True)
class Usage:
    """The stretch from `start` to `end` of one process.

    `threads` are the tracer's numbers of the threads that did something; what indexes threads counts in them. `holds`
    and `waits` (dtypes `HOLD` and `WAIT`) are cut to the stretch; `waited` (one per wait) is how long each took so far
    in all; `fresh_holds`, `fresh_waits` mark those that were not under way before. `done` are the holds, cut into what
    holders did, as far as that is known (`analysis.measure.stretches`). `stack` (the tracer's number) and `core`, one
    per thread, are the newest known, -1 if there is none.
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
    done: Stretches
    stack: npt.NDArray[np.int32]
    core: Ints

    def blame(self, culprit: Ints) -> Shares:
        """Attribute the waits of each thread to what was `done` meanwhile, which is of the classes `culprit`."""
        process = as_process(self.done.holds, self.waits, self.gils)
        return attribute(process, self.waits["thread"].astype(np.int64), culprit)


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
        process, number = _with_stacks(as_process(holds, waits, gils, matched.switch_requests), matched, people)
        newest, core = _newest(whole, process, number)
        done = stretches(process)
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
            done=done._replace(stack=number[done.stack]),
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


def _with_stacks(process: Process, matched: Matched, threads: Sequence[Thread]) -> tuple[Process, Numbers]:
    """The process with what is known of where its threads stood, and the tracer's number of each of its stacks.

    The last one is -1, for where that is not known.
    """
    order = np.lexsort((matched.holds["start"], matched.holds["thread"]))
    of_holds = begins(matched, order), matched.hold_stacks
    told = (*of_holds, matched.wait_stacks, matched.request_stacks, matched.sample_stacks)
    # Numbered anew: records may be damaged. 0 is a stack without a frame of Python.
    number = np.unique(np.concatenate(told))
    number = number[number > 0]
    known = [np.where(one > 0, np.searchsorted(number, one), -1).astype(np.int32) for one in told]
    nothing = np.zeros(len(number), np.bool_)
    stacks = Stacks(StackTable(np.empty(0, FRAME), np.zeros(len(number) + 1, np.int64), nothing, ()), *known)
    told_of = replace(process, threads=tuple(threads), samples=matched.samples, stacks=stacks)
    return told_of, np.append(number, np.int32(-1))


def _newest(whole: Array, process: Process, number: Numbers) -> tuple[Numbers, Ints]:
    """Where each thread was seen last, by itself or by one that waited for it, and on which core.

    `number` is the tracer's of each stack of the process.
    """
    threads, known = len(process.threads), process.stacks
    assert known is not None
    stack, core = np.full(threads, -1, np.int32), np.full(threads, -1, np.int64)
    told = np.isin(whole["kind"], _TOLD) & (whole["stack"] >= 0)
    # Of several values for one index, numpy keeps the last.
    stack[whole["thread"][told]] = whole["stack"][told]
    turns = np.isin(whole["kind"], _TURNS)
    last = np.zeros(threads, np.uint8)
    last[whole["thread"][turns]] = whole["kind"][turns]
    looks = process.switch_requests, process.samples
    time, gil = (np.concatenate([rows[name] for rows in looks]) for name in ("time", "gil"))
    seen, hold = np.concatenate([known.request, known.sample]), hold_at(process, gil, time)
    look = np.argsort(time, kind="stable")
    look = look[(hold[look] >= 0) & (seen[look] >= 0)]
    holder = process.holds["thread"][hold[look]]
    now = last[holder] == Kind.ACQUIRE
    stack[holder[now]] = number[seen[look][now]]
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

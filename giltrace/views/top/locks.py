"""Who sleeps in locks in one process at this moment, and whether these threads wait for each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from giltrace.analysis.findings.deadlock import ADVICE, LEAST_NS, find_standstill, under_way, who_and_where
from giltrace.analysis.findings.figures import Figures
from giltrace.recording.events import ThreadInfo
from giltrace.recording.layout import Kind
from giltrace.recording.live import Update
from giltrace.recording.live_file import LiveFile
from giltrace.recording.live_sleeps import LiveSleeps, Sleep
from giltrace.recording.sleepers import Frame, Look
from giltrace.timeline.blocks import kind_of
from giltrace.timeline.model import (
    BLOCK,
    HELD_LOCK,
    HOLD,
    LOCK,
    SWITCH_REQUEST,
    WAIT,
    BlockEnd,
    LockKind,
    Process,
    Stacks,
    Thread,
)
from giltrace.timeline.sleepers import with_stacks
from giltrace.views.top.model import MINUTE_NS, Deadlock, StuckThread
from giltrace.views.top.usage import as_process

#: Tells from outside who sleeps in locks in a process now, and who has these, as far as that can be seen.
AskSleepers = Callable[[int], Look]

#: Threads in locks whose owners are not known are told of if they sleep for so long: others get theirs in the end.
_LONG_NS = 1_000_000_000
#: Of more threads than these, those that sleep for longest are looked at.
_MOST = 500


class Locks:
    """Follows who sleeps in the locks of one process; `asleep` are those on record, by the tracer's numbers."""

    def __init__(self, file: LiveFile) -> None:
        self._file = file
        self._sleeps = LiveSleeps()
        self.asleep: Mapping[int, Sleep] = self._sleeps.now
        self._frames: dict[int, tuple[Frame, ...]] = {}
        # Those of whom it was found that they do not wait for each other: as long as nothing changes, they do not.
        self._harmless: dict[int, tuple[Sleep, tuple[Frame, ...]]] = {}

    def take(self, update: Update) -> None:
        """Note who fell asleep and who woke up."""
        self._sleeps.take(update)
        if self._file.stacks is not None and (update.events["kind"] == Kind.SLEPT).any():
            self._file.stacks.update()

    def standstill(
        self, until: int, people: Mapping[int, ThreadInfo], names: Mapping[int, str], ask: AskSleepers | None
    ) -> Deadlock | None:
        """Threads that wait for each other now, or may; `people` are those known by the tracer's numbers.

        `names` are those of other threads, by their ids.
        """
        first_ns, outside = ask(self._file.pid) if ask is not None else Look(until, ())
        now = max([until, *(one.last_ns for one in outside)])
        threads = [Thread(info.tid, info.name, 0, now) for info in people.values()]
        number = {tracers: at for at, tracers in enumerate(people)}
        by_tid = {thread.tid: at for at, thread in enumerate(threads)}
        sleeps, stacks = {}, {}
        self._read_stacks()
        for tracers, sleep in self.asleep.items():
            if tracers in number:
                sleeps[number[tracers]] = sleep
                stacks[number[tracers]] = self._frames[sleep.stack]
        # What lasts since before anybody looked is to count as long.
        origin = min(first_ns, *(sleep.since for sleep in sleeps.values()), until) - MINUTE_NS
        for one in outside:
            at = by_tid.setdefault(one.tid, len(threads))
            if at == len(threads):
                threads.append(Thread(one.tid, names.get(one.tid, ""), 0, now))
            if at not in sleeps:
                start = origin if one.seen_ns <= first_ns else one.seen_ns
                sleeps[at] = Sleep(-1, start, one.semaphore, one.lock, one.way, -1, ())
                stacks[at] = one.frames
        for one in outside:
            owner = by_tid.get(one.owner)
            if owner in sleeps and owner != by_tid[one.tid]:
                sleeps[owner] = sleeps[owner]._replace(had=(*sleeps[owner].had, one.address))
        long = {at: sleep for at, sleep in sleeps.items() if sleep.address and now - sleep.since >= LEAST_NS}
        if len({sleep.address for sleep in long.values()}) < 2:
            return None
        chosen = {at: (long[at], stacks[at]) for at in sorted(long, key=lambda at: long[at].since)[:_MOST]}
        if chosen == self._harmless:
            return None
        found = self._judge(origin, now, threads, chosen)
        harmless = found is None and all(now - sleep.since >= _LONG_NS for sleep, _ in chosen.values())
        self._harmless = chosen if harmless else {}
        return found

    def _read_stacks(self) -> None:
        """Read the frames of the tracer's stacks of who sleeps; those of who sleeps on are known."""
        live, before = self._file.stacks, self._frames
        self._frames = {}
        for number in {sleep.stack for sleep in self.asleep.values()}:
            if number in before:
                self._frames[number] = before[number]
            else:
                self._frames[number] = live.stack(number) if live is not None else ()

    def _judge(
        self, origin: int, now: int, threads: list[Thread], sleeps: Mapping[int, tuple[Sleep, tuple[Frame, ...]]]
    ) -> Deadlock | None:
        """Say what a report would of a process of which nothing else is known."""
        figures = Figures(_process(self._file, origin, now, threads, sleeps), time.time_ns())
        found = find_standstill(figures, _LONG_NS)
        if found is None:
            return None
        ns = now - found.start if found.start > origin else None
        process = figures.process
        rows = process.blocks[list(found.blocks)]
        address = process.locks["address"][rows["lock"]].tolist()
        tids = [process.threads[thread].tid for thread in rows["thread"].tolist()]
        follows = [*tids[1:], tids[0]] if found.certain else [None] * len(tids)
        known = zip(tids, who_and_where(figures, found), address, follows, strict=True)
        return Deadlock(
            pid=self._file.pid,
            certain=found.certain,
            for_ns=ns,
            threads=tuple(StuckThread(tid, name, where, lock, waits) for tid, (name, where), lock, waits in known),
            told=under_way(figures, found, ns),
            advice=ADVICE[found.certain],
        )


def _process(
    file: LiveFile,
    origin: int,
    now: int,
    threads: list[Thread],
    sleeps: Mapping[int, tuple[Sleep, tuple[Frame, ...]]],
) -> Process:
    """Just enough of a process for what is found of locks: the blocks that are under way; `sleeps` by their start."""
    places = sorted({(sleep.address, int(kind_of(sleep.way))) for sleep, _ in sleeps.values()})
    number = {place: at for at, place in enumerate(places)}
    owned = {address: at for (address, kind), at in number.items() if kind in (LockKind.SEMAPHORE, LockKind.PARKED)}
    blocks, held = np.zeros(len(sleeps), BLOCK), list[tuple[int, int]]()
    for at, (thread, (sleep, _)) in enumerate(sleeps.items()):
        lock = number[sleep.address, int(kind_of(sleep.way))]
        blocks[at] = (sleep.since, now, thread, lock, -1, now, BlockEnd.OPEN, sleep.timed, False)
        held += [(at, owned[one]) for one in sleep.had if one in owned and owned[one] != lock]
    none = np.empty(0, np.int32)
    unknown = np.full(len(sleeps), -1, np.int32)
    stacks = Stacks(
        with_stacks(None, [frames for _, frames in sleeps.values()]),
        hold_begin=none,
        hold_end=none,
        wait=none,
        request=none,
        block=np.array([at if frames else -1 for at, (_, frames) in enumerate(sleeps.values())], np.int32),
        wake=unknown,
    )
    return replace(
        as_process(np.empty(0, HOLD), np.empty(0, WAIT), 0, np.empty(0, SWITCH_REQUEST)),
        pid=file.pid,
        start=origin,
        end=now,
        threads=tuple(threads),
        blocks=blocks,
        locks=np.array(places, LOCK),
        held=np.array(held, HELD_LOCK),
        stacks=stacks,
        free_threaded="free-threading" in file.python,
    )

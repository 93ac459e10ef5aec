"""Blocks out of records: which sleep ended when, and which post ended it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest

from giltrace.recording.events import FRAME, StackTable
from giltrace.recording.layout import Kind, Outcome, Way
from giltrace.timeline import invariants
from giltrace.timeline.cut import cut
from giltrace.timeline.model import BlockEnd, LockKind, Process
from giltrace.timeline.part import window
from tests.unit.gil_events import PID, Script, process, rows, timeline
from tests.unit.test_gathering import gathered

A, B = 0x7F00_0000_1000, 0x7F00_0000_2000
MAIN, ONE, TWO = range(3)
WOKEN, TIMED_OUT, INTERRUPTED, FAILED, OPEN = BlockEnd
Told = list[tuple[int, ...]]


def found(script: Script, end: int = 0) -> Told:
    """Thread, start, end, how it ended, waker, and when that was, of each block."""
    return rows(process(script, end=end).blocks, "thread", "start", "end", "ended", "waker", "woken")


def test_a_sleep_and_the_post_that_ended_it() -> None:
    built = process(Script().slept(100, ONE, A).posted(190, MAIN, A).awoke(200, ONE).end(300, ONE))
    assert rows(built.blocks, "thread", "start", "end", "ended", "timed", "waker", "woken", "lock") == [
        (ONE, 100, 200, WOKEN, 0, MAIN, 190, 0)
    ]
    assert rows(built.locks, "address", "kind") == [(A, LockKind.SEMAPHORE)]
    assert built.violations == ()


def test_it_was_the_last_post_before_the_end() -> None:
    # The first one was for a thread that never came to sleep, or took what another one was woken for.
    script = Script().slept(100, ONE, A).posted(120, TWO, A).posted(190, MAIN, A).awoke(200, ONE).posted(210, TWO, A)
    assert found(script) == [(ONE, 100, 200, WOKEN, MAIN, 190)]


def test_a_post_before_the_sleep_or_of_another_semaphore_is_none_of_it() -> None:
    script = Script().posted(90, MAIN, A).slept(100, ONE, A).posted(150, MAIN, B).awoke(200, ONE)
    assert found(script) == [(ONE, 100, 200, WOKEN, -1, 200)]


@pytest.mark.parametrize(
    ("outcome", "ended"),
    [(Outcome.TIMED_OUT, TIMED_OUT), (Outcome.INTERRUPTED, INTERRUPTED), (Outcome.FAILED, FAILED)],
)
def test_nobody_woke_who_was_not_woken(outcome: Outcome, ended: BlockEnd) -> None:
    script = Script().slept(100, ONE, A, way=Way.TIMED).posted(150, MAIN, A).awoke(200, ONE, outcome)
    assert found(script) == [(ONE, 100, 200, ended, -1, 200)]
    assert rows(process(script).blocks, "timed") == [(1,)]


def test_several_that_sleep_in_one_semaphore_are_woken_one_by_one() -> None:
    script = Script().slept(100, ONE, A).slept(110, TWO, A)
    script.posted(150, MAIN, A).awoke(160, TWO).posted(170, TWO, A).awoke(180, ONE)
    assert found(script) == [(ONE, 100, 180, WOKEN, TWO, 170), (TWO, 110, 160, WOKEN, MAIN, 150)]


def test_of_two_posts_before_anybody_is_up_each_wakes_one() -> None:
    script = Script().slept(100, ONE, A).slept(110, TWO, A)
    script.posted(150, MAIN, A).posted(151, MAIN, A).awoke(160, TWO).awoke(180, ONE)
    assert found(script) == [(ONE, 100, 180, WOKEN, MAIN, 150), (TWO, 110, 160, WOKEN, MAIN, 151)]


def test_one_post_does_not_wake_two() -> None:
    script = Script().slept(100, ONE, A).slept(110, TWO, A).posted(150, MAIN, A).awoke(160, TWO).awoke(180, ONE)
    assert [(thread, waker) for thread, *_, waker, _ in found(script)] == [(ONE, -1), (TWO, MAIN)]


def test_a_post_that_is_told_after_the_act() -> None:
    script = Script().slept(100, ONE, A).awoke(110, ONE).posted(130, MAIN, A, late=True)
    assert found(script) == [(ONE, 100, 110, WOKEN, MAIN, 110)]


def test_a_later_post_is_no_late_one() -> None:
    script = Script().slept(100, ONE, A).awoke(110, ONE).posted(130, MAIN, A)
    assert found(script) == [(ONE, 100, 110, WOKEN, -1, 110)]


def test_a_sleep_that_does_not_end_lasts_as_long_as_its_thread() -> None:
    script = Script().slept(100, ONE, A).end(400, ONE).slept(200, TWO, A).hold(500, 600, MAIN)
    assert found(script) == [(ONE, 100, 400, OPEN, -1, 400), (TWO, 200, 600, OPEN, -1, 600)]


def test_a_sleep_whose_end_was_lost_is_left_out() -> None:
    script = Script().slept(100, ONE, A).slept(200, ONE, A).posted(240, MAIN, A).awoke(250, ONE).awoke(300, TWO)
    assert found(script) == [(ONE, 200, 250, WOKEN, MAIN, 240)]


def test_locks_have_the_address_that_threads_were_parked_for() -> None:
    script = Script()
    ways = (Way.WITH_ARGUMENT, Way(0))
    for thread, (lock, way) in enumerate(zip((0x10, 0x20), ways, strict=True)):
        script.slept(100 + thread, thread, A + thread * 256, lock, way=way).awoke(200, thread)
    script.slept(110, TWO, B, way=Way.PARKED | Way.RAW).awoke(200, TWO)
    built = process(script)
    assert rows(built.locks, "address", "kind") == [(0x10, LockKind.PARKED), (0x20, LockKind.EVENT), (B, LockKind.RAW)]
    assert rows(built.blocks, "lock") == [(0,), (1,), (2,)]


def test_what_is_made_where_another_one_was_is_another_lock() -> None:
    script = Script().slept(100, ONE, A, 0x10, way=Way.WITH_ARGUMENT).awoke(110, ONE)
    script.slept(200, ONE, A, 0x10).awoke(210, ONE).slept(300, ONE, 0x10).awoke(310, ONE)
    script.slept(400, TWO, B, held=[0x10]).awoke(410, TWO)
    built = process(script)
    kinds = (LockKind.SEMAPHORE, LockKind.PARKED, LockKind.EVENT)
    assert rows(built.locks, "address", "kind")[:3] == [(0x10, kind) for kind in kinds]
    assert rows(built.blocks, "lock") == [(1,), (2,), (0,), (3,)]
    assert rows(built.held, "block", "lock") == [(3, 0)]


def test_what_those_had_who_slept() -> None:
    script = Script().slept(100, ONE, A, held=[B, 0x5555]).slept(110, TWO, B, held=[B])
    script.posted(150, MAIN, A).awoke(160, ONE).posted(170, ONE, B).awoke(180, TWO)
    built = process(script)
    # Nobody slept in the third one, and a thread that waits for what it has taken does not keep it from itself.
    assert rows(built.held, "block", "lock") == [(0, 1)]
    assert rows(built.locks, "address") == [(A,), (B,)]


def test_a_window_has_the_parts_of_blocks_that_are_in_it() -> None:
    script = Script().slept(100, ONE, A, held=[B]).posted(180, MAIN, A).awoke(200, ONE)
    script.slept(300, TWO, B).posted(480, MAIN, B).awoke(500, TWO).hold(600, 700, MAIN)
    whole = timeline(script, end=1000)
    (first,), (second,), (late,) = (window(whole, *edges).processes for edges in ((150, 400), (490, 900), (190, 250)))
    assert [(start, end, ended) for start, end, ended in rows(first.blocks, "start", "end", "ended")] == [
        (150, 200, WOKEN),
        (300, 400, OPEN),
    ]
    assert rows(first.blocks, "waker", "woken") == [(0, 180), (-1, 400)]
    assert rows(first.held, "block", "lock") == [(0, 1)]
    names = [second.threads[thread].name for (thread,) in rows(second.blocks, "thread")]
    assert names == ["thread-2"]
    assert rows(second.blocks, "start", "end", "ended") == [(490, 500, WOKEN)]
    # Who was woken before the window began was about to run when it did.
    assert rows(late.blocks, "start", "woken") == [(190, 190)]
    assert len(second.held) == 0
    for part in (first, second, late):
        assert invariants.check(part) == ()


def test_a_cut_keeps_blocks_whole() -> None:
    script = Script().slept(100, ONE, A, held=[B]).posted(180, MAIN, A).awoke(200, ONE)
    script.slept(300, TWO, B, held=[A]).posted(480, MAIN, B).awoke(500, TWO).hold(600, 700, MAIN)
    (part,) = cut(timeline(script, end=1000), [(400, 450)]).processes
    assert rows(part.blocks, "thread", "start", "end", "waker") == [(TWO, 300, 500, MAIN)]
    assert rows(part.held, "block", "lock") == [(0, 0)]


def test_stacks_are_those_of_who_slept_and_of_who_woke() -> None:
    recorded = Script().slept(100, ONE, A).posted(190, MAIN, A).awoke(200, ONE).slept(300, TWO, A).events()
    recorded.events["stack"] = [1, 2, -1, 0]
    frames = np.array([(0, 1, 1 + line, 0, 0) for line in range(3)], FRAME)
    table = StackTable(frames, np.arange(4), np.zeros(3, np.bool_), ("work", "/srv/app.py"))
    (built,) = timeline([replace(recorded, stacks=table)]).processes
    assert built.stacks is not None
    assert built.stacks.block.tolist() == [1, 0]
    assert built.stacks.wake.tolist() == [2, -1]


def broken(script: Script, **changes: int) -> str:
    built = process(script, end=1000)
    for name, value in changes.items():
        built.blocks[name][0] = value
    return " ".join(invariants.check(built))


def test_promises_of_blocks() -> None:
    script = Script().hold(50, 90, ONE).slept(100, ONE, A).awoke(200, ONE).slept(250, ONE, A).awoke(260, ONE)
    assert broken(script) == ""
    assert "blocked twice at once: 1" in broken(script, end=255)
    assert "blocks that end before they start: 1" in broken(script, end=90)
    assert "blocks that outlast their threads: 1" in broken(script, end=2000)
    assert "used a GIL while they were blocked: 1" in broken(script, start=60)
    assert "used a GIL while they were blocked: 1 ('thread-1'" in broken(script.hold(110, 120, ONE))


@dataclass
class Schedule:
    """Threads that take locks and give them back by chance: what is recorded of it, and what happened."""

    seed: int
    script: Script = field(default_factory=lambda: Script(tuple(range(PID, PID + 6))))
    blocks: Told = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.time = 1000
        self.owner: dict[int, int | None] = {0x1000 + 64 * number: None for number in range(self.chance.randint(1, 4))}
        self.asleep: dict[int, tuple[int, int]] = {}
        self.taken: dict[int, int] = {}
        for _ in range(400):
            self._step()
        self.end = self._passed(100)
        for thread, (start, _) in self.asleep.items():
            self.blocks.append((thread, start, self.end, OPEN, -1, self.end))
        for thread in range(6):
            self.script.end(self.end, thread)
        self.blocks.sort(key=lambda block: block[1])

    def _passed(self, most: int) -> int:
        self.time += self.chance.randint(1, most)
        return self.time

    def _step(self) -> None:
        thread = self.chance.randrange(6)
        if thread in self.asleep:
            self._give_up(thread)
        elif thread in self.taken:
            self._give_back(thread)
        else:
            self._ask(thread)

    def _ask(self, thread: int) -> None:
        lock = self.chance.choice(list(self.owner))
        if self.owner[lock] is None:
            self._take(thread, lock)
            return
        start = self._passed(50)
        self.script.slept(start, thread, lock)
        self.asleep[thread] = start, lock
        if self.chance.random() < 0.2:
            # Who has it gives it back just now, and has seen nobody sleep.
            self._give_back(self._owner(lock), late=True)

    def _owner(self, lock: int) -> int:
        owner = self.owner[lock]
        assert owner is not None
        return owner

    def _take(self, thread: int, lock: int) -> None:
        self.owner[lock], self.taken[thread] = thread, lock

    def _give_up(self, thread: int) -> None:
        if self.chance.random() < 0.1:
            outcome = self.chance.choice((Outcome.TIMED_OUT, Outcome.INTERRUPTED))
            self._wake(thread, outcome, -1, self._passed(50))

    def _wake(self, thread: int, outcome: Outcome, waker: int, woken: int) -> None:
        start, _ = self.asleep.pop(thread)
        end = self._passed(50) if waker >= 0 else woken
        self.script.awoke(end, thread, outcome)
        self.blocks.append((thread, start, end, int(outcome), waker, min(woken, end)))

    def _give_back(self, thread: int, *, late: bool = False) -> None:
        lock = self.taken.pop(thread)
        self.owner[lock] = None
        sleepers = [one for one, (_, other) in self.asleep.items() if other == lock]
        if not sleepers:
            if self.chance.random() < 0.2:
                self.script.posted(self._passed(50), thread, lock)  # somebody sleeps in one of the same place
            return
        alone = len(sleepers) == 1
        posted = self._passed(50)
        next_one = self.chance.choice(sleepers)
        others = [one for one in range(6) if one not in self.asleep and one not in self.taken and one != thread]
        if others and self.chance.random() < 0.2:
            # Another one that comes by takes it before the thread that is woken: that one sleeps on.
            self.script.posted(posted, thread, lock)
            self._take(self.chance.choice(others), lock)
        elif late and alone:
            self._wake(next_one, Outcome.WOKEN, thread, 1 << 60)
            self.script.posted(self._passed(50), thread, lock, late=True)
            self._take(next_one, lock)
        else:
            self.script.posted(posted, thread, lock)
            self._wake(next_one, Outcome.WOKEN, thread, posted)
            self._take(next_one, lock)


@pytest.mark.parametrize("seed", range(60))
def test_blocks_of_any_schedule_are_found(seed: int) -> None:
    schedule = Schedule(seed)
    built = process(schedule.script, end=schedule.end)
    told = rows(built.blocks, "thread", "start", "end", "ended", "waker", "woken")
    assert told == schedule.blocks
    assert built.violations == ()
    assert len(told) > 10


@pytest.mark.parametrize("seed", range(30))
def test_windows_of_any_schedule_add_up(seed: int) -> None:
    schedule = Schedule(seed)
    whole = timeline(schedule.script, end=schedule.end)
    (all_of_it,) = whole.processes
    edges = sorted({0, schedule.end, *random.Random(seed).sample(range(1, schedule.end), 5)})
    parts = [window(whole, *pair).processes for pair in pairwise(edges)]
    assert sum(blocked(part) for (part,) in parts) == blocked(all_of_it)
    for (part,) in parts:
        assert invariants.check(part) == ()
        blocks = part.blocks
        assert (blocks["start"] <= blocks["woken"]).all()
        assert (blocks["woken"] <= blocks["end"]).all()


def blocked(of: Process) -> int:
    return int((of.blocks["end"] - of.blocks["start"]).sum())


@pytest.mark.parametrize("pieces", [1, 3, 50])
def test_blocks_stay_where_quiet_holds_are_gathered(pieces: int) -> None:
    schedule = Schedule(7)
    script, time = schedule.script, schedule.end
    for turn in range(200):
        script.hold(time + turn * 100, time + turn * 100 + 30, turn % 2)
        if turn % 40 == 20:
            script.slept(time + turn * 100 + 40, TWO, A, held=[B]).posted(time + turn * 100 + 50, turn % 2, A)
            script.awoke(time + turn * 100 + 60, TWO)
    recorded = script.events()
    recorded = replace(recorded, events=recorded.events[recorded.events["kind"] != Kind.THREAD_END])
    few = gathered(recorded, pieces=pieces)
    (whole,), (added,) = (timeline([one], end=time + 30_000).processes for one in (recorded, few))
    assert len(few.gathered) > 3
    assert (added.blocks == whole.blocks).all()
    assert (added.held == whole.held).all()
    assert added.violations == whole.violations == ()

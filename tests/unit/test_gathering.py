"""Quiet holds that are added up: what is said of a recording is what is said of every hold of it."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from giltrace.analysis.compare.check import Rule, check
from giltrace.analysis.lock_results import OnPath, Whereabouts
from giltrace.analysis.measure import usage
from giltrace.analysis.report import analyse
from giltrace.analysis.summary import summarise
from giltrace.recording.events import FRAME, GIL_EVENT, Array, ProcessEvents, StackTable
from giltrace.recording.gathering import Edges, Gatherer
from giltrace.recording.layout import Kind, RecordFlag
from giltrace.timeline.gathered import as_they_are
from tests.unit.gil_events import MS, PID, US, Kernel, Script, rows, timeline

NEVER = Edges(np.empty(0, np.int64), 0, 1 << 60)


def quiet(number: int, thread: int = 0, start: int = 1000, step: int = 100, held: int = 30) -> Script:
    """`number` holds of one thread, one after the other, that nobody waits for."""
    script = Script()
    for at in range(number):
        script.hold(start + at * step, start + at * step + held, thread)
    return script


def gathered(recorded: ProcessEvents, edges: Edges = NEVER, pieces: int = 1) -> ProcessEvents:
    """The same with quiet holds gathered, its events given in so many pieces."""
    gatherer = Gatherer(edges)
    cuts = [len(recorded.events) * at // pieces for at in range(pieces + 1)]
    parts = [gatherer.feed(recorded.events[low:high].copy(), last=high == cuts[-1]) for low, high in pairwise(cuts)]
    return replace(recorded, events=np.concatenate(parts), gathered=gatherer.gathered, hand_offs=gatherer.hand_offs)


def test_quiet_holds_become_one_between_the_first_and_the_last() -> None:
    found = gathered(quiet(11).events())
    # The thread's first is no quiet one: that it began then is known by it.
    assert rows(found.events, "time", "kind") == [
        (1000, Kind.ACQUIRE),
        (1030, Kind.RELEASE),
        (1100, Kind.ACQUIRE),
        (1130, Kind.RELEASE),
        (1200, Kind.ACQUIRE),
        (1440, Kind.RELEASE),
        (2000, Kind.ACQUIRE),
        (2030, Kind.RELEASE),
    ]
    assert rows(found.gathered, "start", "end", "thread", "count", "longest") == [(1200, 1440, 0, 8, 30)]
    (process,) = timeline([found]).processes
    assert rows(process.gathered, "hold", "count", "longest") == [(2, 8, 30)]
    assert as_they_are(timeline([found])) == (3, 11)


def test_the_longest_hold_is_one_that_there_was() -> None:
    script = quiet(8).hold(1800, 1890, 0).hold(1900, 1910, 0).hold(2000, 2010, 0)
    found = timeline([gathered(script.events())])
    assert usage.longest_holds(found.processes[0]).tolist() == [90, 0, 0]
    (outcome,) = check(found, [Rule("max-hold", 1)]).outcomes
    assert outcome.measured == 90


def test_few_in_a_row_stay_as_they_are() -> None:
    recorded = quiet(4).events()
    assert (gathered(recorded).events == recorded.events).all()


def test_each_line_keeps_its_holds_and_the_time_after_them() -> None:
    recorded = quiet(12).events()
    given = recorded.events["kind"] == Kind.RELEASE
    recorded.events["stack"][given] = [0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0]
    found = gathered(recorded)
    # In the order in which the thread was there last; a gap of 70 follows each hold.
    assert rows(found.events[4:8], "time", "stack") == [(1200, -1), (1320, 0), (1600, -1), (1750, 1)]
    assert rows(found.gathered, "start", "count", "before") == [(1200, 4, 1), (1600, 5, 0)]


BETWEEN: dict[str, Callable[[Script], Script]] = {
    "a wait without length": lambda script: script.request(1940, 1).acquire(1940, 1).release(1960, 1),
    "a wait": lambda script: script.request(1910, 1).acquire(1935, 1).release(1960, 1),
    "a look at the holder": lambda script: script.add(Kind.SAMPLE, 1920, 1),
    "a request to drop it": lambda script: script.timeout(1920, 1),
    "the end of a thread": lambda script: script.end(1950, 1),
    "a hold that was forced to end": lambda script: script.acquire(1940, 1).release(1950, 1, forced=True),
}


@pytest.mark.parametrize("what", BETWEEN)
def test_no_stretch_reaches_across_anything_else_that_happens(what: str) -> None:
    found = gathered(BETWEEN[what](quiet(20)).events())
    assert sum(count for (count,) in rows(found.gathered, "count")) >= 12
    assert [one for one in rows(found.gathered, "start", "end") if one[0] < 1960 and one[1] > 1900] == []
    (whole,), (added,) = (timeline([one]).processes for one in (BETWEEN[what](quiet(20)).events(), found))
    assert rows(added.waits, "start", "end", "thread") == rows(whole.waits, "start", "end", "thread")
    assert rows(added.samples, "time") == rows(whole.samples, "time")


def test_holds_during_a_wait_are_quiet_as_long_as_it_goes_on() -> None:
    script = quiet(20).request(1950, 1)
    script.acquire(2950, 1).release(2990, 1)
    found = gathered(script.events())
    assert rows(found.gathered, "start", "count") == [(1200, 7), (2100, 8)]
    whole, added = (analyse(timeline([one])).processes[0] for one in (script.events(), found))
    assert added.blame == whole.blame
    assert added.blame[0].ns == 10 * 30


def test_no_stretch_reaches_across_a_switch_or_the_end_of_a_step() -> None:
    recorded = quiet(30).events()
    switched = gathered(recorded, Edges(np.array([1999]), 0, 1 << 60))
    assert rows(switched.gathered, "start", "count") == [(1200, 7), (2100, 18)]
    stepped = gathered(recorded, Edges(np.empty(0, np.int64), 0, 1000))
    assert rows(stepped.gathered, "start", "count") == [(1200, 7), (2100, 8), (3100, 8)]


@pytest.mark.parametrize(
    ("start", "end", "left"), [(1500, 1760, range(1500, 1800, 100)), (1510, 1520, (1500,)), (1531, 1599, ())]
)
def test_in_times_that_are_asked_for_every_hold_stays(start: int, end: int, left: Sequence[int]) -> None:
    found = gathered(quiet(30).events(), Edges(np.empty(0, np.int64), 0, 1 << 60, [(start, end)]))
    (process,) = timeline([found]).processes
    alone = np.delete(process.holds, process.gathered["hold"])
    assert set(left) <= set(alone["start"].tolist())
    inside = process.holds[(process.holds["start"] < end) & (process.holds["end"] > start)]
    assert [hold["start"] for hold in inside if hold in process.holds[process.gathered["hold"]]] == []
    assert as_they_are(timeline([found]))[1] == 30


def test_a_hold_that_a_step_ends_in_stays() -> None:
    found = gathered(quiet(20, start=990).events(), Edges(np.empty(0, np.int64), 0, 1000))
    assert (1990, Kind.ACQUIRE) in rows(found.events, "time", "kind")
    assert (2020, Kind.RELEASE) in rows(found.events, "time", "kind")


def test_hand_offs_between_quiet_holds_are_counted() -> None:
    script = Script()
    for at in range(21):
        script.hold(1000 + at * 100, 1030 + at * 100 + at % 2, at % 2)
    found = gathered(script.events())
    # One from a thread's first hold, and one to another's.
    assert rows(found.hand_offs, "gil", "ns", "count") == [(0, 69, 9), (0, 70, 9)]
    whole, added = (summarise(timeline([one])).processes[0].gils for one in (script.events(), found))
    assert added == whole
    assert added[0].hand_offs == 20


@dataclass
class World:
    """A process by chance: threads that take turns quietly, in quick turns, or wait for each other."""

    seed: int
    time: int = 1_000_000

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.threads = self.chance.randint(1, 4)
        self.script = Script(tuple([PID, 101, 102, 103][: self.threads]))
        self.kernel = Kernel()
        self.on: dict[int, int] = {}
        for thread in range(self.threads):
            self._switch_on(thread)
        for _ in range(self.chance.randint(3, 40)):
            self.chance.choice((self.alone, self.alone, self.together, self.contend, self.sleep))()
        self.time += 1000
        for thread in range(self.threads):
            self.script.end(self.time, thread)
            self._switch_off(thread)

    def _spend(self, most: int) -> int:
        self.time += self.chance.randint(1, most)
        return self.time

    def _switch_on(self, thread: int) -> None:
        self.on[thread] = self.time

    def _switch_off(self, thread: int) -> None:
        self.kernel.run(self.on.pop(thread), self.time, self.script.tids[thread], thread)

    def _hold(self, thread: int, most: int = 2_000) -> None:
        self.script.acquire(self._spend(500), thread, core=thread)
        self.script.release(self._spend(most), thread)

    def alone(self) -> None:
        thread = self.chance.randrange(self.threads)
        for _ in range(self.chance.randint(1, 300)):
            self._hold(thread)

    def together(self) -> None:
        for _ in range(self.chance.randint(1, 300)):
            self._hold(self.chance.randrange(self.threads))

    def sleep(self) -> None:
        thread = self.chance.randrange(self.threads)
        self._switch_off(thread)
        self._spend(3 * MS)
        self._switch_on(thread)
        self._spend(10)

    def contend(self) -> None:
        """One waits, maybe to the end of a timed wait; another has the GIL, or has it again and again."""
        if self.threads == 1:
            return self.alone()
        waiter, holder = self.chance.sample(range(self.threads), 2)
        again = self.chance.random() < 0.4
        self.script.acquire(self._spend(500), holder, core=holder)
        self.script.request(self._spend(500), waiter, us=5000)
        if again:
            self.script.release(self._spend(500), holder)
            for _ in range(self.chance.randint(1, 100)):
                self._hold(holder)
            self.script.acquire(self._spend(500), holder, core=holder)
        for _ in range(self.chance.randint(0, 3)):
            self.script.add(Kind.SAMPLE, self._spend(MS), waiter)
        forced = self.chance.random() < 0.5
        if forced:
            self.script.timeout(self._spend(5 * MS), waiter, us=5000)
        self.script.release(self._spend(200 * US), holder, forced=forced)
        self.script.acquire(self._spend(100), waiter, core=waiter)
        self.script.release(self._spend(MS), waiter)
        return None

    def recorded(self, lines: int) -> ProcessEvents:
        """Its records; threads give the GIL up at so many lines of their own, one after the other or by chance."""
        found = self.script.events()
        events = found.events.copy()
        numbers = np.random.default_rng(self.seed).integers(0, lines, len(events))
        if self.chance.random() < 0.5:
            numbers = np.arange(len(events)) // 2 % lines
        known = (events["kind"] == Kind.RELEASE) | (events["kind"] == Kind.SAMPLE)
        known |= (events["kind"] == Kind.TIMEOUT) & ((events["flags"] & RecordFlag.SWITCH_REQUEST) != 0)
        # A waiter looks at whoever has the GIL.
        taken = np.maximum.accumulate(np.where(events["kind"] == Kind.ACQUIRE, np.arange(len(events)), 0))
        whose = np.where(events["kind"] == Kind.RELEASE, events["thread"], events["thread"][taken]).astype(np.int64)
        events["stack"] = np.where(known, whose * lines + numbers, -1)
        return replace(found, events=events, stacks=table(self.threads * lines))


def table(count: int) -> StackTable:
    """So many stacks of a line of their own each, in one function."""
    frames = np.array([(0, 1, 1 + line, 0, 0) for line in range(count)], FRAME)
    return StackTable(frames, np.arange(count + 1), np.zeros(count, np.bool_), ("work", "/srv/app.py"))


@pytest.mark.parametrize("lines", [1, 4])
@pytest.mark.parametrize("sched", [True, False], ids=["sched", "light"])
@pytest.mark.parametrize("seed", range(25))
def test_the_report_is_that_of_every_hold(seed: int, sched: bool, lines: int) -> None:
    world = World(seed)
    recorded = world.recorded(lines)
    switches = world.kernel.events().switches["time"] if sched else np.empty(0, np.int64)
    few = gathered(recorded, Edges(switches, 0, MS), pieces=world.chance.randint(1, 9))
    whole, added = (timeline([one], world.kernel if sched else None, end=world.time) for one in (recorded, few))
    assert as_they_are(added)[1] == len(whole.processes[0].holds)
    assert added.violations == whole.violations == ()
    assert [totals(one.processes[0].states) for one in (whole, added)] == [totals(whole.processes[0].states)] * 2
    expected, found = (analyse(one).processes[0] for one in (whole, added))
    # Replayed by steps of a thread, which are fewer; phases may begin within a step.
    assert found.what_if.speedup_bound == pytest.approx(expected.what_if.speedup_bound, rel=0.05)
    same: dict[str, Any] = {"what_if": expected.what_if, "phases": (), "quality": replace(expected.quality, remarks=())}
    found = replace(found, quality=replace(found.quality, remarks=()))
    assert spent(found.whereabouts) == spent(expected.whereabouts)
    assert spent(found.critical_path) == spent(expected.critical_path)
    if lines > 1:
        # Between two holds of a step a thread was at one line of its own or at another.
        same |= {"whereabouts": (), "critical_path": ()}
        # Short holds share in the samples of like ones by chance: of which line each of them was told is another.
        for side in ("blame", "victims", "culprits"):
            assert sum(row.ns for row in getattr(found, side)) == sum(row.ns for row in getattr(expected, side))
        same |= dict.fromkeys(("blame", "victims", "culprits", "blame_by_function", "findings", "verdict"), ())
    assert found.quality == same["quality"]
    assert replace(found, **same) == replace(expected, **same)


def spent(rows: Sequence[Whereabouts | OnPath]) -> dict[tuple[str, str, str], int]:
    """How long the threads of each role did what, wherever they were."""
    found: dict[tuple[str, str, str], int] = {}
    for row in rows:
        key = (row.site.thread, row.doing, row.cause)
        found[key] = found.get(key, 0) + row.ns
    return found


def totals(states: Array) -> dict[tuple[int, int], int]:
    """How long each thread was in each state, in ns."""
    found: dict[tuple[int, int], int] = {}
    for start, end, thread, state in rows(states, "start", "end", "thread", "state"):
        found[thread, state] = found.get((thread, state), 0) + end - start
    return found


def test_what_comes_in_pieces_is_what_comes_at_once() -> None:
    recorded = World(3).recorded(3)
    whole = analyse(timeline([recorded])).processes[0]
    for pieces in (1, 2, 7, len(recorded.events)):
        found = analyse(timeline([gathered(recorded, pieces=pieces)])).processes[0]
        assert (found.threads, found.gils) == (whole.threads, whole.gils)


def test_nothing_comes_of_nothing() -> None:
    gatherer = Gatherer(NEVER)
    assert len(gatherer.feed(np.empty(0, GIL_EVENT))) == len(gatherer.feed(np.empty(0, GIL_EVENT), last=True)) == 0
    assert len(gatherer.gathered) == len(gatherer.hand_offs) == 0

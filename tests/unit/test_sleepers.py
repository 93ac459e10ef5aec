"""Who slept in a lock as the tracer came: blocks from the begin of the record on, and whose the locks are."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from giltrace.analysis.findings.verdict import judge
from giltrace.recording.events import ProcessEvents
from giltrace.recording.layout import Way
from giltrace.recording.sleepers import Sleeper, is_sleeper
from giltrace.timeline.model import BlockEnd, LockKind, Process
from giltrace.timeline.sleepers import with_sleepers, with_stacks
from tests.unit.gil_events import MS, PID, Script, not_python, timeline

END = 500 * MS
ONE, OTHER = 0x7000, 0x8000
NAMES = {"101": "payer", "102": "booker"}


def sleeper(tid: int, semaphore: int, *, owner: int = 0, lock: int = 0, last: int = END, line: int = 8) -> Sleeper:
    """Seen asleep 2 ms after the record began, and at its end."""
    way = Way.PARKED | Way.WITH_ARGUMENT if lock else Way(0)
    return Sleeper(PID, tid, 2 * MS, last, semaphore, lock, int(way), owner, (("work", "/srv/app.py", line),))


def circle(owners: bool = True) -> list[Sleeper]:
    return [
        sleeper(101, ONE, owner=102 if owners else 0, line=8),
        sleeper(102, OTHER, owner=101 if owners else 0, line=9),
    ]


def told(events: ProcessEvents, asleep: list[Sleeper]) -> Process:
    (process,) = timeline(with_sleepers([events], asleep, NAMES), end=END).processes
    assert process.violations == ()
    return process


def nothing(python: str = "3.13.0 (main)") -> ProcessEvents:
    events = replace(Script((), python=python).acquire(0, 0).events(), threads=())
    return replace(events, events=events.events[:0])


def test_they_are_blocked_from_the_begin_to_the_end() -> None:
    process = told(nothing(), circle())
    assert process.blocks["start"].tolist() == [0, 0]
    assert process.blocks["end"].tolist() == [END, END]
    assert process.blocks["ended"].tolist() == [BlockEnd.OPEN] * 2
    assert [process.threads[at].name for at in process.blocks["thread"].tolist()] == ["payer", "booker"]
    assert [process.threads[at].tid for at in process.blocks["thread"].tolist()] == [101, 102]
    verdict = judge(process)
    assert verdict.summary == (
        "Deadlock: from before the record begins on, to the end, threads waited for each other: 'payer' at work "
        "(app.py:8) in a lock that 'booker' had, 'booker' at work (app.py:9) in a lock that 'payer' had."
    )


def test_parked_ones_likewise() -> None:
    asleep = [sleeper(101, ONE, owner=102, lock=0x100), sleeper(102, OTHER, owner=101, lock=0x200)]
    process = told(nothing(), asleep)
    assert process.locks["kind"].tolist() == [LockKind.PARKED] * 2
    assert judge(process).summary.startswith("Deadlock: ")


def test_without_owners_they_may_wait_for_each_other() -> None:
    verdict = judge(told(nothing(), circle(owners=False)))
    assert verdict.summary.startswith("Blocked to the end, from before the record begins on: 'payer' at work (app.py:")
    assert "They may wait for each other" in verdict.advice


def test_who_knows_one_owner_knows_no_circle() -> None:
    one, other = circle()
    verdict = judge(told(nothing(), [one, replace(other, owner=0)]))
    assert verdict.summary.startswith("Blocked to the end, ")


def test_one_that_nobody_is_left_to_wake_up() -> None:
    verdict = judge(told(nothing(), [sleeper(PID, ONE)]))
    assert verdict.kind == "deadlock"
    assert "in a lock that nobody gave back" in verdict.summary
    assert "each" not in verdict.summary
    awake = Script((PID, 101)).hold(0, END, 1).events()
    assert judge(told(awake, [sleeper(PID, ONE)])).kind != "deadlock"


def test_it_sleeps_until_its_next_record() -> None:
    events = Script((PID, 101)).hold(0, 300 * MS, 0).request(200 * MS, 1).acquire(300 * MS, 1).release(END, 1).events()
    process = told(events, circle())
    assert process.blocks["end"].tolist() == [200 * MS, END]
    assert process.blocks["ended"].tolist() == [BlockEnd.WOKEN, BlockEnd.OPEN]
    assert process.blocks["waker"].tolist() == [-1, -1]
    # Until then the other one may have waited for it.
    assert judge(process).evidence["lost_ns"] == 200 * MS


def test_what_it_had_it_has_as_it_falls_asleep_later() -> None:
    """Thread 102 was awake with the lock that 101 sleeps in, and then sleeps in one of which 101 is the owner."""
    script = Script((PID, 102)).hold(MS, 10 * MS, 1).slept(20 * MS, 1, OTHER, held=[ONE])
    process = told(script.events(), [sleeper(101, ONE, owner=102), sleeper(103, OTHER, owner=101)])
    assert judge(process).summary.startswith("Deadlock: from 20.0 ms on, to the end")


def test_who_was_awake_as_it_was_looked_at_tells_it_by_records() -> None:
    events = Script((PID, 101)).hold(MS, 2 * MS, 1).events()
    assert [process.threads[0].tid for process in [told(events, [sleeper(101, ONE)])]] == [PID]
    assert len(told(events, [sleeper(101, ONE)]).blocks) == 0


@pytest.mark.parametrize(("last", "blocks"), [(2 * MS, 0), (END, 1)])
def test_without_a_gil_one_may_wake_up_unseen(last: int, blocks: int) -> None:
    events = nothing("3.13.0 experimental free-threading build (main)")
    assert len(told(events, [sleeper(101, ONE, last=last)]).blocks) == blocks
    assert len(told(nothing(), [sleeper(101, ONE, last=last)]).blocks) == 1


@pytest.mark.parametrize(("last", "blocks"), [(2 * MS, 0), (END, 1)])
def test_where_records_are_lost_too_and_then_no_hold_goes_on_for_it(last: int, blocks: int) -> None:
    script = Script((PID, 102)).hold(0, MS, 1).acquire(3 * MS, 0)
    (process,) = timeline(with_sleepers([script.events(lost=5)], [sleeper(101, ONE, last=last)], NAMES)).processes
    assert len(process.blocks) == blocks
    assert (process.end, int(process.holds["end"].max())) == (3 * MS, 3 * MS)
    (process,) = timeline(with_sleepers([script.events()], [sleeper(101, ONE, last=END)], NAMES)).processes
    assert int(process.holds["end"].max()) == END


def test_without_its_line_or_an_owner_it_may_wait_for_work() -> None:
    unknown = [replace(one, frames=()) for one in circle(owners=False)]
    assert len(told(nothing(), unknown).blocks) == 0
    known = [replace(one, frames=()) for one in circle()]
    assert judge(told(nothing(), known)).summary.startswith("Deadlock: ")
    ended = replace(unknown[0], lock=0x100, way=int(Way.PARKED))
    assert told(nothing(), [ended]).locks["kind"].tolist() == [LockKind.EVENT]


def test_a_ring_has_forgotten_what_came_after_the_look() -> None:
    events = replace(nothing(), start=100 * MS, overwritten=1000)
    assert len(told(events, [sleeper(101, ONE, last=2 * MS)]).blocks) == 0
    seen = replace(sleeper(101, ONE), seen_ns=END, last_ns=END)
    assert told(events, [seen]).blocks["start"].tolist() == [100 * MS]


def test_other_processes_and_later_programs_have_none() -> None:
    first, second = with_sleepers([nothing(), nothing()], circle(), NAMES)
    assert (len(first.events), len(second.events)) == (2, 0)
    left, _ = with_sleepers([not_python(0, "sleep"), nothing()], circle(), NAMES)
    assert np.array_equal(left.events, not_python(0, "sleep").events)
    (other,) = with_sleepers([replace(nothing(), pid=PID + 1)], circle(), NAMES)
    assert len(other.events) == 0


def test_stacks_are_added_to_those_that_are_there() -> None:
    table = with_stacks(None, [[("a", "x.py", 1), ("b", "x.py", 2)], []])
    table = with_stacks(table, [[("b", "y.py", 3)]])
    assert table.offsets.tolist() == [0, 2, 2, 3]
    assert table.strings == ("a", "x.py", "b", "y.py")
    assert [table.strings[at] for at in table.frames["function"].tolist()] == ["a", "b", "b"]


def test_it_is_read_as_it_was_written() -> None:
    (one,) = circle()[:1]
    written = json.loads(json.dumps(asdict(one)))
    assert is_sleeper(written)
    assert Sleeper.of_json(written) == one
    assert not is_sleeper({**written, "frames": [["f", "x.py", 1 << 31]]})
    for field, value in {"tid": 0, "way": 32, "owner": -1, "frames": [["f", "x.py"]], "lock": 1 << 64}.items():
        assert not is_sleeper({**written, field: value})
    assert not is_sleeper({**written, "more": 1})

"""What the end of a process hung on, in small programs whose answer is plain."""

from __future__ import annotations

import pytest

from giltrace.analysis.replay.critical_path import critical_path, on_path
from giltrace.timeline.model import Process
from tests.synthetic import make_process
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, PID, US, Kernel, Script, process


def path(made: Process) -> list[tuple[int, int, int]]:
    """The stretches, in whole ms."""
    return [(int(t), round(s / MS), round(e / MS)) for t, s, e in zip(*critical_path(made), strict=True)]


def joining(*, late: int = 0) -> Process:
    """The main thread starts two, of 300 ms and of 500 ms, and joins them, `late` ns after the start."""
    script = Script(tids=(PID, 101, 102)).hold(0, 10 * MS, 0)
    script.hold(12 * MS, 312 * MS, 1).hold(313 * MS, 513 * MS, 2)
    kernel = Kernel().run(0, 10 * MS + late, PID).born(5 * MS, 101).born(6 * MS, 102)
    kernel.run(12 * MS, 312 * MS, 101, 1).run(12 * MS, 513 * MS, 102).ended(312 * MS, 101).ended(513 * MS, 102)
    script.hold(513 * MS + 200 * US, 520 * MS, 0)
    return process(script, kernel.run(513 * MS + 100 * US, 520 * MS, PID).ended(520 * MS, PID))


def test_it_leads_through_the_thread_that_was_joined_last_and_back_to_who_started_it() -> None:
    assert path(joining()) == [(0, 0, 6), (2, 6, 513), (0, 513, 520)]


def test_a_thread_that_ends_as_it_is_told_to_does_not_lead_on() -> None:
    assert path(joining(late=498 * MS)) == [(0, 0, 520)]


@pytest.mark.parametrize("first", [True, False])
def test_a_loop_that_another_thread_stops_leads_to_that_one(first: bool) -> None:
    """Thread 1 counts until thread 2 has done its steps; which of them ends first is chance. Both are joined."""
    script = Script(tids=(PID, 101, 102)).hold(0, 10 * MS, 0)
    kernel = Kernel().run(0, 10 * MS, PID).born(5 * MS, 101).born(6 * MS, 102)
    for step in range(10):
        at = 11 * MS + step * 49 * MS
        script.hold(at, at + MS, 2).hold(at + 2 * MS, at + 48 * MS, 1, forced=True)
    end = 502 * MS if first else 501 * MS + 500 * US
    kernel.run(12 * MS, end, 101, 1).ended(end, 101).run(400 * MS, 502 * MS - 400 * US, 102).ended(
        502 * MS - 400 * US, 102
    )
    script.hold(506 * MS, 507 * MS, 0)
    made = process(script, kernel.run(end + 100 * US, 507 * MS, PID).ended(507 * MS, PID))
    assert {thread for thread, start, stop in path(made) if stop - start > 10} == {2}


@pytest.mark.parametrize(("file", "known"), [("/usr/lib/python3.11/queue.py", True), ("/srv/app.py", False)])
def test_a_lock_leads_to_the_thread_that_held_the_gil_when_it_was_given(file: str, known: bool) -> None:
    """The main thread sleeps from 20 to 100 ms; thread 1 computes, and goes on afterwards."""
    script = Script(tids=(PID, 101)).hold(0, 20 * MS, 0).hold(21 * MS, 101 * MS, 1).hold(102 * MS, 130 * MS, 0)
    script.hold(131 * MS, 150 * MS, 1).hold(160 * MS, 200 * MS, 0)
    kernel = Kernel().run(0, 20 * MS, PID).born(5 * MS, 101).run(21 * MS, 150 * MS, 101, 1)
    kernel.run(100 * MS, 200 * MS, PID).ended(150 * MS, 101).ended(200 * MS, PID)
    made = with_stacks(process(script, kernel), [[("get", file, 1)]], hold={0: 0})
    assert path(made) == ([(0, 0, 5), (1, 5, 100), (0, 100, 200)] if known else [(0, 0, 200)])


def test_rows_are_counted_as_far_as_they_lie_on_it() -> None:
    made = joining()
    found = critical_path(made)
    share = {int(t): int(ns) for t, ns in zip(made.holds["thread"], on_path(made, found, made.holds), strict=True)}
    assert share == {0: 7 * MS - 200 * US, 1: 0, 2: 200 * MS}


def test_without_threads_or_records_there_is_none() -> None:
    empty = process(Script(tids=()))
    assert path(empty) == []
    assert len(on_path(empty, critical_path(empty), empty.waits)) == 0


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("sched", [True, False])
def test_its_stretches_follow_each_other_to_the_end(seed: int, sched: bool) -> None:
    made = make_process(threads=6, holds=300, gils=1 + seed % 2, sched=sched, seed=seed)
    found = critical_path(made)
    assert len(found.start) > 0
    assert (found.end > found.start).all()
    assert (found.start[1:] == found.end[:-1]).all()
    assert found.end[-1] <= made.end
    lives = [(thread.start, thread.end) for thread in made.threads]
    assert all(lives[t][0] <= s and e <= lives[t][1] for t, s, e in zip(*found, strict=True))

"""The figures that decide what the end hung on, and what a hold past a request was: below the edge, at it, above."""

from __future__ import annotations

from dataclasses import replace

import pytest

from giltrace.analysis.measure import usage
from giltrace.analysis.measure.off_gil import off_gil
from giltrace.analysis.measure.wait_causes import UNHEEDED_NS, wait_causes
from giltrace.analysis.replay import critical_path as paths
from giltrace.analysis.replay import program
from giltrace.analysis.replay.critical_path import critical_path
from giltrace.analysis.replay.native_locks import native_wakes
from giltrace.timeline.model import Process
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, PID, US, Kernel, Script, process
from tests.unit.test_edges_waits import AROUND


def passes(made: Process, thread: int) -> bool:
    """Whether the path goes through a thread."""
    return thread in critical_path(made).thread.tolist()


def stopped(*, holds: int = 20, own: int = 0, late: int = 0) -> Process:
    """Thread 1 loops until thread 2 has done its steps, and ends `late` ns after that: it gave `own` of `holds` up."""
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, MS, 0), Kernel().run(0, MS, PID)
    kernel.born(MS // 2, 101).born(MS // 2, 102)
    for step in range(holds):
        at = 2 * MS + step * 10 * MS
        script.hold(at, at + MS, 2).hold(at + 2 * MS, at + 9 * MS, 1, forced=step >= own)
    done = 2 * MS + holds * 10 * MS
    kernel.run(done - MS, done, 102).ended(done, 102).run(2 * MS, done + late, 101, 1).ended(done + late, 101)
    script.hold(done + late + 200 * US, done + late + MS, 0)
    return process(script, kernel.run(done + late, done + late + MS, PID).ended(done + late + MS, PID))


@pytest.mark.parametrize(("holds", "edge"), [(20, paths.LOOP_RELEASES), (100, 10)])
def test_a_loop_gives_the_gil_up_by_itself_a_few_times_or_hardly_ever(holds: int, edge: int) -> None:
    found = [passes(stopped(holds=holds, own=edge + by, late=MS), 2) for by in AROUND]
    assert found == [True, True, False]


def test_a_loop_ends_soon_after_it_is_told_to() -> None:
    """Within 2 % of its life, which is 201.5 ms long and what it takes to end."""
    edge = (201 * MS + 500 * US) * 2 // 98
    assert [passes(stopped(late=edge + by), 2) for by in (-US, US)] == [True, False]


def joined(*, late: int = 0, waits: int = 100 * MS, others: int = 0) -> Process:
    """The main thread joins thread 1, which lives for 500 ms, `waits` ns before that ends, and goes on `late` ns after.

    So many `others` are born meanwhile, and end in between.
    """
    script, kernel = Script(tids=(PID, 101)).hold(0, MS, 0), Kernel().born(MS // 2, 101)
    end = MS // 2 + 500 * MS
    script.hold(2 * MS, end, 1)
    kernel.run(0, end - waits, PID).run(2 * MS, end, 101, 1).ended(end, 101)
    for number in range(others):
        kernel.born(end - MS, 200 + number).ended(end + (number + 1) * US, 200 + number)
    begin = end + late
    script.hold(begin, begin + 5 * MS, 0)
    return process(script, kernel.run(begin, begin + 5 * MS, PID).ended(begin + 5 * MS, PID))


def test_who_goes_on_a_millisecond_after_anothers_end_joined_it() -> None:
    assert [passes(joined(late=program.JOIN_SLACK_NS + by), 1) for by in AROUND] == [True, True, False]


def test_who_ends_at_once_after_it_is_joined_was_told_to() -> None:
    assert program.TOLD_TO_END * 500 == 10
    assert [passes(joined(waits=10 * MS + by), 1) for by in AROUND] == [False, True, True]


def test_a_few_ends_in_between_do_not_hide_the_one_that_was_joined() -> None:
    near = program.NEIGHBOURS
    found = [passes(joined(late=100 * US, others=number), 1) for number in (near - 2, near - 1, near)]
    assert found == [True, True, False]


def test_who_waits_for_a_lock_is_woken_by_who_had_the_gil_up_to_fifty_milliseconds_before() -> None:
    found = []
    for by in AROUND:
        script = Script(tids=(PID, 101)).hold(0, 20 * MS, 0).hold(21 * MS, 50 * MS - by, 1)
        kernel = Kernel().run(0, 20 * MS, PID).born(5 * MS, 101).run(21 * MS, 50 * MS - by, 101, 1)
        kernel.run(100 * MS, 200 * MS, PID).ended(150 * MS, 101).ended(200 * MS, PID)
        script.hold(100 * MS, 200 * MS, 0)
        waits = [[("get", "/usr/lib/python3.12/queue.py", 1)]]
        found.append(passes(with_stacks(process(script, kernel), waits, hold={0: 0}), 1))
    assert found == [True, True, False]


def asked(over: int, *, sleeps: tuple[int, int] | None = None, sched: bool = True) -> Process:
    """Thread 1 has the GIL for `over` ns after it was asked for it, and `sleeps` from and to, from the request on."""
    script = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0).acquire(MS, 1).request(2 * MS, 2).timeout(7 * MS, 2)
    end = 7 * MS + over
    script.release(end, 1).acquire(end, 2).release(end + MS, 2)
    kernel = Kernel().ended(end + MS, 101).ended(end + MS, 102).ended(end + MS, PID).run(end, end + MS, 102, 1)
    if sleeps is None:
        kernel.run(MS, end, 101)
    else:
        kernel.run(MS, 7 * MS + sleeps[0], 101).run(7 * MS + sleeps[1], end, 101)
    return process(script, kernel if sched else None)


def test_who_goes_on_for_a_millisecond_after_a_request_is_in_c() -> None:
    found = [wait_causes(asked(UNHEEDED_NS + by)).sum(axis=0).tolist() for by in AROUND]
    assert found == [[6 * MS - 1, 0, 0, 0, 0], [6 * MS, 0, 0, 0, 0], [5 * MS, MS + 1, 0, 0, 0]]


def test_without_context_switches_fifty_milliseconds_are_no_lack_of_a_core() -> None:
    found = [len(usage.overstays(asked(usage.UNEXPLAINED_NS + by, sched=False), MS).hold) for by in AROUND]
    assert found == [0, 1, 1]


def test_of_a_hold_that_giltrace_came_into_and_left_a_fifth_of_a_second_may_be_its_own() -> None:
    found = []
    for by in AROUND:
        end = 2 * MS + usage.ATTACHED_NS + by
        script = Script(tids=(PID, 101)).acquire(0, 0).request(MS, 1).timeout(2 * MS, 1)
        made = process(script, Kernel().run(0, end, PID).ended(end, PID).ended(end, 101), end=end)
        found.append(len(usage.overstays(replace(made, left=True), MS).hold))
    assert found == [0, 1, 1]


@pytest.mark.parametrize(
    ("sleeps", "its_doing"),
    [
        ((100 * US - 1, 20 * MS), False),
        ((100 * US, 20 * MS), False),
        ((100 * US + 1, 20 * MS), True),
        ((50 * US, 20 * MS - 100 * US - 1), True),
        ((50 * US, 20 * MS - 100 * US), False),
        ((50 * US, 20 * MS - 100 * US + 1), False),
    ],
)
def test_sleep_on_the_way_to_giving_the_gil_up_is_not_the_holders_doing(
    sleeps: tuple[int, int], its_doing: bool
) -> None:
    """It begins a tenth of a millisecond after the request at the latest, and ends so long before the release."""
    assert bool(len(usage.overstays(asked(20 * MS, sleeps=sleeps), 5 * MS).hold)) == its_doing


@pytest.mark.parametrize(("by", "found"), [(-1, False), (0, True), (1, True)])
def test_a_call_has_a_lock_of_its_own_if_others_ran_in_it_for_half_of_a_delay(by: int, found: bool) -> None:
    """Thread 2 is blocked for 100 ms in a call in which thread 1 runs for half of that, until then."""
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel().run(0, 10 * US, PID)
    script.hold(MS, 2 * MS, 2).hold(3 * MS, 4 * MS, 1)
    kernel.run(MS, 2 * MS, 102, 1).run(3 * MS, 4 * MS, 101)
    kernel.run(52 * MS - by, 102 * MS, 101).run(102 * MS, 110 * MS, 102)
    for tid in (PID, 101, 102):
        kernel.ended(120 * MS, tid)
    ask = [[("ask", "/srv/app.py", 9)]]
    made = with_stacks(process(script, kernel), ask, hold={1: 0, 2: 0})
    wakes = native_wakes(off_gil(made))
    assert (wakes.time.tolist(), wakes.waker.tolist()) == (([102 * MS], [1]) if found else ([], []))

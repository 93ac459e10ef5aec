"""Kinds of programs that were told wrongly once: what limits them, on a busy machine as well."""

from __future__ import annotations

from dataclasses import replace

import pytest

from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.io_bound import io_bound
from giltrace.analysis.findings.ranked import find_findings
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.measure import usage
from giltrace.analysis.replay.critical_path import critical_path, on_path
from giltrace.timeline.model import Process
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, PID, US, Kernel, Script, process

GET = [("wait", "/usr/lib/python3.12/threading.py", 327), ("stage", "/srv/app.py", 5)]
SPIN = [("spin", "/srv/app.py", 7)]


def pipeline(*, woken: bool = True) -> Process:
    """Thread 1 computes all the time; every 12 ms it lets thread 2 go on, which waits for it before a short step.

    Not `woken`: what thread 2 was blocked on is not known to be a lock.
    """
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel().run(0, 10 * US, PID)
    script.hold(20 * US, 30 * US, 2)
    kernel.run(15 * US, 40 * US, 102, 1)
    at = 50 * US
    for _ in range(60):
        woke, end = at + 6 * MS, at + 12 * MS
        script.acquire(at, 1).request(woke, 2).timeout(woke + 5 * MS, 2).release(end, 1, forced=True)
        kernel.run(at, end, 101).run(woke - US, woke, 102, 1)
        script.acquire(end + 10 * US, 2).release(end + 30 * US, 2)
        kernel.run(end + 5 * US, end + 40 * US, 102, 1)
        at = end + 50 * US
    script.hold(at + 100 * US, at + 200 * US, 0)
    kernel.run(at + 50 * US, at + 200 * US, PID).ended(at, 101).ended(at, 102).ended(at + 200 * US, PID)
    stage = GET if woken else GET[1:]
    return with_stacks(process(script, kernel), [GET[:1], SPIN, stage], hold={0: 0, 1: 1, 2: 2}, wait={1: 1, 2: 2})


def test_what_waits_for_the_stage_that_serves_it_costs_nothing() -> None:
    verdict = judge(pipeline())
    assert verdict.kind == "single-threaded"
    assert "'thread-1' had 99." in verdict.summary
    assert "The GIL costs nothing here" in verdict.advice
    assert judge(pipeline(woken=False)).kind == "convoy"


def beating(every: int) -> Process:
    """The main thread computes; thread 1 wakes up `every` so many ns and waits 5 ms for it."""
    script, kernel = Script(tids=(PID, 101)), Kernel()
    at = 0
    for _ in range(30):
        wants = at + every - 5 * MS
        script.acquire(at, 0).request(wants, 1).timeout(wants + 5 * MS, 1).release(wants + 5 * MS, 0, forced=True)
        kernel.run(at, wants + 5 * MS, PID).run(wants - US, wants, 101, 1)
        script.acquire(wants + 5 * MS, 1).release(wants + 5 * MS + 20 * US, 1)
        kernel.run(wants + 5 * MS, wants + 5 * MS + 20 * US, 101, 1)
        at = wants + 5 * MS + 20 * US
    return process(script, kernel.ended(at, PID).ended(at, 101))


@pytest.mark.parametrize(("every", "told"), [(100 * MS, False), (40 * MS, True), (25 * MS, True)])
def test_one_thread_beside_a_heartbeat_is_no_contention(every: int, told: bool) -> None:
    verdict = judge(beating(every))
    assert verdict.kind == "single-threaded"
    assert ("Thread 'thread-1' waited for it" in verdict.advice) == told
    assert ("costs nothing here" in verdict.advice) != told


@pytest.mark.parametrize("ended", [True, False])
def test_a_call_that_sleeps_with_the_gil_is_a_hog_asleep(ended: bool) -> None:
    """Thread 1 has it for 300 ms in the kernel, and for good when the recording ends before the process does."""
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel().run(0, 10 * US, PID)
    script.acquire(MS, 1).request(2 * MS, 2)
    for at in range(7, 300, 5):
        script.timeout(at * MS, 2)
    kernel.run(MS, 2 * MS, 101)
    if ended:
        script.release(301 * MS, 1).acquire(301 * MS, 2).release(302 * MS, 2)
        kernel.run(301 * MS - 10 * US, 301 * MS, 101).run(301 * MS, 302 * MS, 102, 1)
    kernel.ended(305 * MS, 101).ended(305 * MS, 102).ended(305 * MS, PID)
    made = replace(process(script, kernel, end=305 * MS), end_of="process" if ended else "recording")
    verdict = judge(made)
    assert verdict.kind == "hog"
    assert "slept in the kernel with it; thread 'thread-1'" in verdict.summary
    assert ("deadlock" in verdict.summary) != ended
    assert "smaller pieces" not in verdict.advice


def locked(*, with_gil: bool = False, lines: int = 1) -> Process:
    """Threads 1 and 2 are in one call off the GIL, each for 5 ms after the other; thread 2 ends last.

    `with_gil`: thread 2 waits for its turn without having given the GIL up. They call from so many `lines`.
    """
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel().run(0, 10 * US, PID)
    kernel.born(5 * US, 101).born(6 * US, 102)
    at, second = MS, 2 * MS if with_gil else 5 * MS
    for _ in range(40):
        script.hold(at, at + 20 * US, 1)
        kernel.run(at, at + 5 * MS, 101)
        begin = at + 100 * US
        if with_gil:
            script.hold(begin, at + 5 * MS + 20 * US, 2)
        else:
            script.hold(begin, begin + 20 * US, 2)
        kernel.run(begin, begin + 20 * US, 102, 1).run(at + 5 * MS, at + 5 * MS + second, 102, 1)
        at += 5 * MS + second + 10 * US
    script.hold(at + 200 * US, at + 300 * US, 0)
    kernel.run(at + 100 * US, at + 300 * US, PID, 0).ended(at - second // 2, 101).ended(at, 102).ended(
        at + 300 * US, PID
    )
    calls = [[("ask", "/srv/app.py", 9)], [("ask", "/srv/app.py", 8 + lines)]]
    return with_stacks(process(script, kernel), calls, hold={1: 0, 2: 1}, wait={1: 0, 2: 1})


@pytest.mark.parametrize("with_gil", [False, True])
def test_a_lock_in_native_code_is_told_also_where_it_is_waited_for_with_the_gil(with_gil: bool) -> None:
    verdict = judge(locked(with_gil=with_gil))
    assert verdict.summary.startswith("One thread at a time, off the GIL: 2 threads called ask (app.py:9)")
    assert ("with the GIL" in verdict.summary) == with_gil


def test_the_path_leads_through_a_lock_in_native_code_to_who_was_in_it() -> None:
    """The thread that ends last waited for each of the other one's turns, and these are half of the time."""
    for lines, known in ((1, True), (2, False)):
        made = locked(lines=lines)
        path = critical_path(made)
        in_first = int((path.end - path.start)[path.thread == 1].sum())
        assert (in_first > 0.4 * (made.end - made.start)) == known
        assert on_path(made, path, made.states).sum() >= (path.end - path.start).sum() * 0.99


def test_turns_are_no_larger_a_share_than_all_where_no_thread_had_a_core() -> None:
    """Thread 1 sleeps with the GIL while thread 2 is off it without a core: nobody could run."""
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel().run(0, 10 * US, PID)
    script.acquire(MS, 1).release(91 * MS, 1).hold(92 * MS, 93 * MS, 2)
    kernel.run(MS, 2 * MS, 101).run(MS, 5 * MS, 102, 1, preempted=True).run(81 * MS, 93 * MS, 102, 1, preempted=True)
    kernel.run(90 * MS, 91 * MS, 101).ended(100 * MS, 101).ended(100 * MS, 102).ended(100 * MS, PID)
    made = process(script, kernel)
    assert usage.starved_ns(made) > 50 * MS
    assert 0 < usage.used_share(made) <= 1


@pytest.mark.parametrize("lost", [0, 8 * MS])
def test_native_code_is_parallel_whatever_holders_lacked_of_cores(lost: int) -> None:
    """Two threads hash for 30 ms each time, and lack a core for `lost` whenever they have the GIL for 2 ms."""
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel().run(0, 10 * US, PID)
    at = MS
    for _ in range(40):
        for thread in (1, 2):
            begin = at + (thread - 1) * (2 * MS + lost)
            end = begin + 2 * MS + lost
            script.hold(begin, end, thread)
            kernel.run(begin, begin + MS, 100 + thread, thread - 1, preempted=lost > 0)
            kernel.run(begin + MS + lost, end + 30 * MS, 100 + thread, thread - 1)
        at += 2 * (2 * MS + lost) + 30 * MS
    verdict = judge(process(script, kernel.ended(at, PID).ended(at, 101).ended(at, 102)))
    assert verdict.kind == "parallel"
    assert verdict.evidence["off_running_ratio"] == pytest.approx(15, rel=0.01)


def test_a_main_thread_that_serves_is_told_where_it_is_blocked() -> None:
    script, kernel = Script(tids=(PID, 101)).hold(0, US, 1), Kernel().run(0, US, 101)
    for at in range(MS, 400 * MS, 20 * MS):
        script.hold(at, at + 2 * MS, 0)
        kernel.run(at, at + 2 * MS, PID)
    select = ("select", "/usr/lib/python3.12/selectors.py", 415)
    sleeper = [("sleep", "/srv/app.py", 3)]
    kernel.ended(401 * MS, PID).ended(101 * MS, 101)
    for leaf, told in ((select, True), (GET[0], False)):
        made = with_stacks(process(script, kernel), [[leaf, ("serve", "/srv/app.py", 12)], sleeper], hold={0: 0, 1: 1})
        assert ("serve (app.py:12)" in io_bound(Costed(made)).advice) == told


def test_what_threads_lost_most_to_comes_first_where_the_end_hung_on_none_of_it() -> None:
    found = find_findings(pipeline())
    assert [one.ns for one in found] == sorted((one.ns for one in found), reverse=True)
    assert sum(one.path_ns for one in found) < 10 * MS

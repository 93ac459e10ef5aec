"""The verdicts on threads that wait for each other in locks, and their borders."""

from __future__ import annotations

from dataclasses import replace

import pytest

from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.locks import _telling
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.lock_results import LockBlame, Meanwhile
from giltrace.analysis.report import analyse
from giltrace.analysis.site import Site
from giltrace.timeline.model import BlockEnd
from tests.synthetic import make_timeline
from tests.unit.block_events import Scene, library, own
from tests.unit.gil_events import MS, US
from tests.unit.lock_scenes import STACKS, TURN, brief_turns, in_a_circle, stopped, taking_turns

END = 20 * TURN + 100 * US


def verdict(scene: Scene, end: int = END, *, sched: bool = True, free_threaded: bool = False) -> Verdict:
    return judge(scene.process(end, sched=sched, free_threaded=free_threaded))


def test_io_under_a_lock() -> None:
    found = verdict(taking_turns())
    assert found.kind == "lock-bound"
    assert "most at take (app.py:1): 201 ms in 20 blocks, 10.1 ms at most" in found.summary
    assert "Whoever had it was asleep or in I/O at work (app.py:1) for 95." in found.summary
    assert "What sleeps or waits for I/O at work (app.py:1) is done with the lock taken" in found.advice
    assert found.evidence["blocks"] == 20
    assert found.evidence["blocked_share"] == pytest.approx(1, abs=0.01)


def test_computing_under_a_lock() -> None:
    found = verdict(taking_turns(python=True))
    assert found.kind == "lock-bound"
    assert "Whoever had it ran Python up to take (app.py:1)" in found.summary
    assert "Without the lock these threads would wait for the GIL instead." in found.advice


def test_without_a_gil_computing_under_a_lock_is_not_compared_with_the_gil() -> None:
    scene = Scene(3, STACKS).hold(0, US, 0, "start")
    for turn in range(10):
        owner, begin = 1 + turn % 2, turn * TURN + US
        scene.run(begin, begin + TURN, owner)
        scene.block(begin, begin + TURN, 3 - owner, at="take", by=owner, wake="give")
    found = verdict(scene, 10 * TURN + 100 * US, free_threaded=True)
    assert found.kind == "lock-bound"
    assert "GIL" not in found.advice
    assert found.advice.startswith("Whoever has the lock computes with it: do less inside")


@pytest.mark.parametrize(("python", "native"), [(False, False), (True, False), (False, True)])
def test_where_no_line_is_known_none_is_left_out_of_a_sentence(python: bool, native: bool) -> None:
    found = judge(taking_turns(python=python, native=native).process(END, stacks=False))
    assert found.kind == "lock-bound"
    assert " at  " not in found.advice
    assert "lock" in found.advice.partition(":")[0]


def sharing_a_core(at: str) -> Scene:
    """As native code under a lock, but whoever has it has a core for the first 2 ms of each turn of 10 only."""
    made = Scene(3, STACKS).hold(0, 20 * US, 0, "start")
    for turn in range(20):
        owner, begin = 1 + turn % 2, turn * TURN + 50 * US
        end = begin + TURN
        made.hold(begin, begin + 200 * US, owner, at)
        made.run(begin + 200 * US, begin + 2 * MS, owner).ready(begin + 2 * MS, owner)
        made.hold(end - 200 * US, end - 50 * US, owner, "take")
        since = 100 * US if turn == 0 else begin - 50 * US
        made.block(since, end, 3 - owner, at="take", by=owner, woken=end - 100 * US, wake="give")
    return made


def test_an_owner_without_a_core_is_told_by_what_it_did_with_one() -> None:
    found = verdict(sharing_a_core("work"))
    assert "Whoever had it had no core at work (app.py:1)" in found.summary
    assert "The native code called at work (app.py:1) runs with the lock taken" in found.advice


def test_time_without_a_core_at_an_unknown_line_is_not_judged() -> None:
    site = Site("worker-*", "work", "app.py", 1, False, "work", "app.py", 1)
    did = (Meanwhile(Site("worker-*"), "no-core", "", 60), Meanwhile(site, "asleep", "", 25))
    row = LockBlame(site, None, "lock", (), 100, 1, 100, did)
    assert _telling(row) == did[1]
    assert _telling(replace(row, meanwhile=(did[0], replace(did[1], ns=15)))) is None
    assert _telling(replace(row, meanwhile=did[:1])) is None


def test_who_waits_for_an_import_is_not_told_that_it_could_do_without_it() -> None:
    made = taking_turns(at="import")
    made.stacks = {**STACKS, "import": [library("_ModuleLock.acquire", "<frozen importlib._bootstrap>"), own("main")]}
    (told,) = analyse(make_timeline(made.process(END))).processes
    assert told.lock_blame[0].cause == "import-lock"
    assert [row.speedup_bound for row in told.lock_blame if row.speedup_bound] == []
    assert told.verdict.advice.startswith("Do less while the module is imported")
    assert "takes as long" in told.verdict.advice


def test_native_code_under_a_lock() -> None:
    found = verdict(taking_turns(native=True))
    assert found.kind == "lock-bound"
    assert "The native code called at work (app.py:1) runs with the lock taken" in found.advice


def test_a_lock_of_what_is_called_is_no_lock_of_the_line() -> None:
    """As a parser has one: threads are blocked in the call in which the one that has it runs native code."""
    stacks = {**STACKS, "take": [("work", "/srv/app.py", 1)]}
    made = taking_turns(native=True)
    made.stacks = stacks
    found = verdict(made)
    assert found.kind == "lock-bound"
    assert found.advice.startswith("What is called there has a lock of its own: give each thread an object of its own")


def test_without_context_switches_nothing_is_claimed_of_io() -> None:
    found = verdict(taking_turns(), sched=False)
    assert found.kind == "lock-bound"
    assert "I/O" not in found.summary + found.advice


def test_brief_turns_are_a_convoy() -> None:
    found = verdict(brief_turns(), 4_000 * 20 * US + 100 * US)
    assert found.kind == "lock-bound"
    assert found.summary.startswith("Lock convoy: ")
    assert "changed hands 4" in found.summary or "changed hands 5" in found.summary
    assert "Take it less often" in found.advice
    assert found.evidence["turn_ns"] < 50_000


def test_longer_turns_are_none_however_many() -> None:
    assert "convoy" not in verdict(brief_turns(400, 200 * US), 400 * 200 * US + 100 * US).summary


def test_logging_has_its_own_advice() -> None:
    found = verdict(taking_turns(at="log"))
    assert found.kind == "lock-bound"
    assert "logging.handlers.QueueHandler" in found.advice


def test_what_is_awaited_makes_no_lock_bound_program() -> None:
    scene = Scene(3, STACKS).hold(0, 20 * US, 0, "put")
    for turn in range(20):
        scene.block(turn * TURN + 50 * US, (turn + 1) * TURN, 1, at="get", by=0, wake="put")
        scene.hold((turn + 1) * TURN - 900 * US, (turn + 1) * TURN - 50 * US, 0, "put")
    assert verdict(scene).kind == "single-threaded"


def test_a_lock_for_a_tenth_of_the_time_is_not_what_a_program_is_bound_by() -> None:
    scene = Scene(3, STACKS).hold(0, 20 * US, 0, "start").hold(END - MS, END, 0, "last")
    scene.block(50 * US, 20 * MS, 1, at="take", by=0, wake="give")
    assert verdict(scene).kind != "lock-bound"


def test_what_the_gil_cost_more_than_locks_is_told_of_the_gil() -> None:
    """Two threads compute in turns and both wait for the GIL; a third is blocked in a lock for a third of that."""
    scene = Scene(4, STACKS).hold(0, 10 * US, 0, "start")
    for turn in range(100):
        begin = 20 * US + turn * 5 * MS
        scene.script.hold(
            begin, begin + 5 * MS - 20 * US, 1 + turn % 2, asked=max(begin - 5 * MS, 15 * US), forced=True
        )
        scene.run(begin, begin + 5 * MS - 20 * US, 1 + turn % 2)
    scene.block(20 * US, 180 * MS, 3, at="take", by=1, wake="give")
    assert verdict(scene, 501 * MS).kind == "cpu-bound-contention"


def test_a_stopped_world() -> None:
    found = verdict(stopped(), 100 * MS, free_threaded=True)
    assert found.kind == "stop-the-world"
    assert "for 30.0% of the time threads stood still" in found.summary
    assert "lost 60.0 ms" in found.summary
    assert "Most of it at collect (app.py:1)." in found.summary
    assert "gc.freeze()" in found.advice


def test_a_world_that_is_stopped_for_moments_is_none() -> None:
    assert verdict(stopped(ns=MS + 100 * US), 100 * MS, free_threaded=True).kind != "stop-the-world"


def test_threads_that_each_have_what_the_other_wants() -> None:
    found = verdict(in_a_circle(), 500 * MS)
    assert found.kind == "deadlock"
    assert "from 20.0 ms on, to the end, threads waited for each other" in found.summary
    assert "'worker-1' at first (app.py:1) in a lock that 'worker-2' had" in found.summary
    assert "'worker-2' at second (app.py:1) in a lock that 'worker-1' had" in found.summary
    assert "in the same order everywhere" in found.advice
    assert found.evidence == {"threads": 2, "since_ns": 20 * MS, "lost_ns": 480 * MS}


def test_a_circle_of_three() -> None:
    scene = Scene(4).hold(0, MS, 0, "start")
    for thread in (1, 2, 3):
        scene.block(10 * MS, 500 * MS, thread, at=f"at {thread}", lock=thread % 3, held=[thread - 1])
    found = verdict(scene, 500 * MS)
    assert found.kind == "deadlock"
    assert found.evidence["threads"] == 3


def test_a_circle_that_a_timeout_ended_lasted_for_so_long() -> None:
    found = verdict(in_a_circle(gave_up=True), 500 * MS)
    assert found.kind == "deadlock"
    assert "for 100 ms, until one gave up" in found.summary


def test_a_circle_that_is_known_by_whose_turn_it_was() -> None:
    """Nothing told that thread 1 had lock 0, but that it gave it back once its own time was up."""
    scene = Scene(3).hold(0, MS, 0, "start")
    scene.block(10 * MS, 120 * MS, 1, at="first", lock=1, ended=BlockEnd.TIMED_OUT, timed=True)
    scene.block(20 * MS, 121 * MS, 2, at="second", lock=0, by=1, wake="give", held=[1])
    found = verdict(scene, 200 * MS)
    assert found.kind == "deadlock"
    assert "for 100 ms, until one gave up" in found.summary


def test_threads_that_are_blocked_to_the_end_may_be_deadlocked() -> None:
    found = verdict(in_a_circle(held=False), 500 * MS)
    assert found.kind == "deadlock"
    assert found.summary.startswith("Blocked to the end, from 20.0 ms on: ")
    assert "They may wait for each other" in found.advice


def test_threads_that_wait_for_one_lock_to_the_end_are_not() -> None:
    scene = Scene(3).hold(0, 500 * MS, 0, "start")
    for thread in (1, 2):
        scene.block(10 * MS, 500 * MS, thread, at="take", lock=0)
    assert verdict(scene, 500 * MS).kind != "deadlock"


@pytest.mark.parametrize("scene", [taking_turns(), taking_turns(python=True), brief_turns()])
def test_turns_are_no_deadlock(scene: Scene) -> None:
    assert verdict(scene).kind == "lock-bound"


def test_a_circle_of_moments_is_none() -> None:
    scene = Scene(3).hold(0, 500 * MS, 0, "start")
    scene.block(10 * MS, 40 * MS, 1, at="first", lock=1, ended=BlockEnd.TIMED_OUT, timed=True, held=[0])
    scene.block(10 * MS, 41 * MS, 2, at="second", lock=0, by=1, held=[1])
    assert verdict(scene, 500 * MS).kind != "deadlock"


def _kept_at_the_end(scene: Scene, at: int, *, goes_on: bool = False) -> Scene:
    """The main thread keeps the GIL for 80 ms, which both workers wait for in order to end, or to go on."""
    end = at + 80 * MS
    scene.hold(at, end, 0, "collect")
    for worker in (1, 2):
        scene.script.request(at + MS, worker)
        for time in range(at + 6 * MS, end, 5 * MS):
            scene.script.timeout(time, worker)
        begin = end + worker * 50 * US
        last = begin + (4 * MS if goes_on and worker == 2 else 40 * US)
        scene.script.acquire(begin, worker).release(last, worker)
        scene.run(begin, last, worker)
        scene.ends[worker] = last + 10 * US
    return scene


def test_what_keeps_threads_from_ending_as_the_process_does_is_no_finding() -> None:
    last = taking_turns(10)
    at = 10 * TURN + MS
    assert verdict(_kept_at_the_end(last, at), at + 100 * MS).kind == "lock-bound"
    alone = Scene(3, STACKS).hold(0, 20 * US, 0, "start").hold(0, 20 * US, 1).hold(20 * US, 40 * US, 2)
    assert verdict(_kept_at_the_end(alone, at), at + 100 * MS).kind != "hog"


def test_what_keeps_a_thread_that_has_more_to_do_is_one_also_at_the_end() -> None:
    alone = Scene(3, STACKS).hold(0, 20 * US, 0, "start").hold(0, 20 * US, 1).hold(20 * US, 40 * US, 2)
    at = 10 * TURN + MS
    assert verdict(_kept_at_the_end(alone, at, goes_on=True), at + 100 * MS).kind == "hog"


def _kept_meanwhile(scene: Scene, at: int) -> Scene:
    """The main thread keeps the GIL once, for 60 ms, while a third thread wants it."""
    scene.threads = 4
    scene.hold(at, at + 60 * MS, 0, "collect")
    scene.script.request(at + MS, 3)
    for time in range(at + 6 * MS, at + 60 * MS, 5 * MS):
        scene.script.timeout(time, 3)
    scene.script.acquire(at + 60 * MS, 3).release(at + 65 * MS, 3)
    return scene.run(at + 60 * MS, at + 65 * MS, 3)


@pytest.mark.parametrize(("locks", "kind"), [(True, "lock-bound"), (False, "hog")])
def test_locks_for_some_of_the_time_that_cost_more_than_what_else_was_found_come_first(locks: bool, kind: str) -> None:
    scene = taking_turns(9) if locks else Scene(3, STACKS).hold(0, 20 * US, 0, "start")
    assert verdict(_kept_meanwhile(scene, 9 * TURN + MS), 480 * MS).kind == kind

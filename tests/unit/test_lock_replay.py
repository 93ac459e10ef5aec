"""Wakes on record in replays and on the critical path: what the end hung on, and what it would bring to do without."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.lock_results import OnPath
from giltrace.analysis.replay.critical_path import critical_path, path_shares
from giltrace.analysis.replay.native_locks import Wakes
from giltrace.analysis.replay.program import read_program
from giltrace.analysis.replay.what_if import replay, what_if, without_lock
from giltrace.analysis.report import analyse
from giltrace.reports.json import to_json
from giltrace.timeline.model import Process
from tests.synthetic import make_timeline
from tests.unit.block_events import Scene, library, own
from tests.unit.gil_events import MS, US
from tests.unit.lock_scenes import TURN, joined, taking_turns

END = 20 * TURN + 100 * US


def path(made: Process) -> list[tuple[int, int, int]]:
    """The stretches, in whole ms."""
    return [(int(t), round(s / MS), round(e / MS)) for t, s, e in zip(*critical_path(made), strict=True)]


def shares(made: Process) -> list[tuple[str, str, str, int]]:
    """Function, what was done there, cause, ms."""
    f = Costed(made)
    rows: tuple[OnPath, ...] = path_shares(made, f.sites, f.activity, f.block_causes, f.path)
    return [(row.site.own_function, row.doing, row.cause, round(row.ns / MS)) for row in rows]


def handing_over() -> Process:
    """Thread 0 sleeps in a lock from 10 to 60 ms, until thread 1 gives that back, which computes until 80 ms."""
    made = Scene(2).hold(0, 10 * MS, 0, "take").hold(12 * MS, 62 * MS, 1, "give").hold(64 * MS, 90 * MS, 1, "rest")
    made.block(10 * MS, 63 * MS, 0, at="take", by=1, woken=62 * MS - 100 * US, wake="give")
    made.hold(91 * MS, 100 * MS, 0, "last")
    made.kernel.run(63 * MS, 64 * MS, made.tid(0))
    return made.process(100 * MS)


def test_a_block_leads_to_the_thread_that_ended_it() -> None:
    made = handing_over()
    assert path(made)[-2:] == [(1, 0, 63), (0, 63, 100)] or path(made)[-1] == (0, 63, 100)
    assert any(thread == 1 and end == 63 for thread, _, end in path(made))


def test_without_the_record_of_it_the_path_stays_in_the_thread_that_slept() -> None:
    made = Scene(2).hold(0, 10 * MS, 0, "take").hold(12 * MS, 62 * MS, 1, "give")
    made.hold(91 * MS, 100 * MS, 0, "last").hold(70 * MS, 90 * MS, 1, "rest")
    assert path(made.process(100 * MS)) == [(0, 0, 100)]


def test_the_path_through_turns_is_told_by_what_the_owners_did() -> None:
    """The end hung on no block, but on what was done with the lock."""
    made = joined(taking_turns()).process(END)
    found = shares(made)
    assert found[0][:3] == ("work", "asleep", "")
    assert found[0][3] >= 0.8 * END / MS
    assert sum(ns for *_, ns in found) <= END / MS + 1


def test_shares_add_up_to_the_path() -> None:
    made = handing_over()
    f = Costed(made)
    rows = path_shares(made, f.sites, f.activity, f.block_causes, f.path)
    assert sum(row.ns for row in rows) == int((f.path.end - f.path.start).sum())
    assert [row.ns for row in rows] == sorted((row.ns for row in rows), reverse=True)


def test_a_process_without_records_has_no_shares() -> None:
    assert shares(Scene(0).process(0)) == []


def test_what_slept_until_a_wake_sleeps_until_then_in_the_replay() -> None:
    """Threads that take turns under a lock are no faster without a GIL."""
    made = taking_turns().process(END)
    found = what_if(made, 4)
    assert found.speedup_bound == pytest.approx(1, abs=0.05)


def test_without_the_lock_what_was_slept_in_it_is_not() -> None:
    made = taking_turns().process(END)
    held = without_lock(made, 4, Wakes.none(), ())
    free = without_lock(made, 4, Wakes.none(), (0,))
    assert held.speedup_bound == pytest.approx(1, abs=0.05)
    assert free.speedup_bound == pytest.approx(2, abs=0.15)


def throttled(*, names: tuple[str, ...] = (), fed: bool = True, blocks: int = 1) -> Process:
    """Two of four threads may be in at once: those that have it take all jobs, while the others wait for it.

    They are a pool's, if `fed`, and the others wait in so many `blocks`.
    """
    pool = library("_worker", "/usr/lib/python3.12/concurrent/futures/thread.py")
    made = Scene(5, {"job": [own("job"), *([pool] if fed else [])]})
    made.hold(0, 20 * US, 0, "start")
    for thread in (1, 2):
        for at in range(MS + thread * 10 * US, 200 * MS, 5 * MS):
            made.hold(at, at + 5 * US, thread, "job")
    for thread in (3, 4):
        for part in range(blocks):
            begin, end = (MS + at * 195 * MS // blocks for at in (part, part + 1))
            made.block(begin, end - US, thread, at="job", by=1, woken=end - 10 * US, wake="job")
        made.hold(196 * MS + thread * 10 * US, 196 * MS + thread * 10 * US + 5 * US, thread, "job")
    built = made.process(200 * MS)
    called = names or tuple(one.name for one in built.threads)
    return replace(
        built, threads=tuple(one._replace(name=name) for one, name in zip(built.threads, called, strict=True))
    )


def test_without_the_lock_threads_share_what_only_some_did_because_of_it() -> None:
    """Each thread's own work kept, 200 ms would stay 200 ms: "at most 1 x as fast" is what a raised number belies."""
    assert without_lock(throttled(), 4, Wakes.none(), (0,)).speedup_bound == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(("blocks", "bound"), [(1, 1), (40, 2)])
def test_the_lock_may_be_what_they_take_jobs_by(blocks: int, bound: int) -> None:
    """One that each waits for time and again, while one does more than the others; once in a life it is no queue."""
    made = throttled(fed=False, blocks=blocks)
    assert without_lock(made, 4, Wakes.none(), (0,)).speedup_bound == pytest.approx(bound, abs=0.1)


def test_threads_that_do_other_work_do_not_share_it() -> None:
    made = throttled(names=("MainThread", "reader", "writer", "checker", "sweeper"))
    assert without_lock(made, 4, Wakes.none(), (0,)).speedup_bound == pytest.approx(1, abs=0.05)


def test_what_threads_do_not_wait_for_the_gil_they_do_not_do_for_others_without_it() -> None:
    """They wait for the lock, which stays."""
    assert what_if(throttled(), 4).speedup_bound == pytest.approx(1, abs=0.05)


def test_without_the_lock_the_gil_stays() -> None:
    """Both compute with the lock taken: without it they would wait for the GIL instead."""
    made = taking_turns(python=True).process(END)
    assert without_lock(made, 4, Wakes.none(), (0,)).speedup_bound < 1.1
    replayed = replay(read_program(made, 4, Wakes.none(), without=(0,)), 4)
    assert made.end - made.start > 1.8 * replayed


def test_other_locks_stay() -> None:
    made = taking_turns()
    made.block(1, 2, 0, lock=1)
    built = made.process(END)
    assert without_lock(built, 4, Wakes.none(), (1,)).speedup_bound == pytest.approx(1, abs=0.05)


def test_without_context_switches_it_is_worked_out_of_holds() -> None:
    made = taking_turns().process(END, sched=False)
    assert 1.8 < without_lock(made, 4, Wakes.none(), (0,)).speedup_bound <= 2.05


def test_the_report_says_it_of_the_costliest_lock_and_not_of_what_is_awaited() -> None:
    made = joined(taking_turns()).process(END)
    (told,) = analyse(make_timeline(made)).processes
    assert [(row.cause, row.speedup_bound > 1.8) for row in told.lock_blame] == [("lock", True), ("join", False)]
    assert told.lock_blame[1].speedup_bound == 0
    assert told.critical_path[0].doing == "asleep"
    assert told.whereabouts[0].doing == "lock"


def test_a_lock_that_cost_little_is_not_replayed() -> None:
    made = Scene(3).hold(0, 100 * MS, 0, "start").block(MS, 4 * MS, 1, at="take", by=0, wake="give")
    (told,) = analyse(make_timeline(made.process(100 * MS))).processes
    assert [row.speedup_bound for row in told.lock_blame] == [0]


def test_all_of_it_is_in_the_json() -> None:
    report = json.loads(to_json(analyse(make_timeline(joined(taking_turns()).process(END)))))
    (told,) = report["processes"]
    assert told["verdict"]["kind"] == "lock-bound"
    assert told["whereabouts"][0]["cause"] == "lock"
    assert told["lock_blame"][0]["meanwhile"][0]["doing"] == "asleep"
    assert told["critical_path"][0]["site"]["own_function"] == "work"


@pytest.mark.parametrize("seed", range(5))
def test_whatever_wakes_are_on_record_the_path_leads_to_the_end(seed: int) -> None:
    """Also where records are damaged: who was woken by itself, by someone who slept, or before it slept."""
    random = np.random.default_rng(seed)
    made = Scene(4).hold(0, MS, 0, "start")
    for number in range(40):
        start = int(random.integers(0, 90)) * MS + number * US
        end = start + int(random.integers(1, 10)) * MS
        woken = start + int(random.integers(-2, 12)) * MS
        thread, waker = (int(one) for one in random.integers(0, 4, 2))
        made.block(start, end, thread, at="take", by=waker, woken=woken, lock=int(random.integers(0, 3)), wake="give")
    built = made.process(100 * MS)
    found = critical_path(built)
    assert found.end[-1] == built.end
    assert (found.start[1:] == found.end[:-1]).all()
    assert what_if(built, 2).speedup_bound >= 1

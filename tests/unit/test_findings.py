"""Findings and their costs: each ns of a wait has one cause, and the costliest is the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.findings.costs import Costed, find_costs
from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.findings.imports import imports
from giltrace.analysis.findings.io_bound import blocked_at
from giltrace.analysis.findings.ranked import find_findings
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.measure import usage
from giltrace.timeline.model import Cores, Process
from tests.synthetic import make_process
from tests.unit.analysis_stacks import own_site, with_stacks
from tests.unit.gil_events import MS, PID, US, Kernel, Script, process
from tests.unit.test_summary_verdict import (
    brief_steps,
    convoy,
    cpu_bound,
    hog,
    io_bound,
    parallel,
    single,
    without_a_core,
)

WORK, LOCK = ("work", "/srv/app.py", 7), ("wait", "/usr/lib/python3.12/threading.py", 327)


def feeding(*, late: bool) -> Process:
    """The main thread hands work to two threads that count, step by step, and then joins them.

    Its steps wait like those of a convoy. `late`: it ends last by itself, and the others as they are told to.
    """
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel().run(0, 15 * US, PID)
    script.hold(20 * US, 30 * US, 1).hold(40 * US, 50 * US, 2)
    at, last = MS, {1: 50 * US, 2: 50 * US}
    for turn in range(60):
        thread = 1 + turn % 2
        script.hold(at, at + 5 * MS, thread, asked=last[thread], forced=True)
        kernel.run(at - 5 * US, at + 5 * MS, 100 + thread, thread % 2)
        last[thread] = at + 5 * MS + US
        if turn < 40:
            script.request(at + 100 * US, 0).acquire(at + 5 * MS + 10 * US, 0).release(at + 5 * MS + 30 * US, 0)
            kernel.run(at + 5 * MS, at + 5 * MS + 40 * US, PID)
        at += 5 * MS + 40 * US
    joins = at - MS if late else at - 60 * MS
    kernel.run(at - 70 * MS, joins, PID, 1) if late else None
    script.hold(at + 200 * US, at + 300 * US, 0)
    kernel.ended(at, 101).ended(at, 102).run(at + 100 * US, at + 300 * US, PID).ended(at + 300 * US, PID)
    return process(script, kernel)


def serial(*, together: bool = False, lines: int = 1) -> Process:
    """Two threads call native code off the GIL, one at a time or `together`; from one line or from one each."""
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel()
    end = 0
    for step in range(40):
        for thread in (1, 2):
            at = MS + step * 10 * MS + thread * 200 * US
            script.hold(at, at + 100 * US, thread)
            kernel.run(at, at + 100 * US, 100 + thread, thread - 1)
            mine = at + 150 * US if together or thread == 1 else at + 5 * MS
            kernel.run(mine, mine + (9 * MS if together else 4500 * US), 100 + thread, thread - 1)
            end = at + 10 * MS
    made = process(script, kernel.ended(end, PID).ended(end, 101).ended(end, 102))
    stacks = [[("execute", "/srv/app.py", 9)], [("execute", "/srv/app.py", 10)]]
    return with_stacks(made, stacks, hold={1: 0, 2: lines - 1})


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("sched", [True, False])
def test_the_causes_of_each_wait_add_up_to_it(seed: int, sched: bool) -> None:
    made = make_process(threads=5, holds=400, gils=1 + seed % 2, sched=sched, seed=seed)
    costs = find_costs(Costed(made))
    assert (costs.ns >= 0).all()
    assert (costs.ns.sum(axis=1) == usage.lengths(made.waits)).all()
    assert ((costs.on_path >= 0) & (costs.on_path <= 1)).all()
    assert (costs.of_path() <= costs.of_threads()).all()


def test_who_feeds_and_joins_others_is_not_what_they_cost() -> None:
    verdict = judge(feeding(late=False))
    assert verdict.kind == "cpu-bound-contention"
    assert verdict.summary.startswith("CPU-bound contention")


def test_the_same_steps_are_a_convoy_if_the_end_hung_on_them() -> None:
    made = feeding(late=True)
    assert judge(made).kind == "convoy"
    (first, *_) = find_findings(made)
    assert (first.cause, first.victim.thread) == ("convoy", "thread-*")


def importing(*frames: tuple[str, str, int]) -> Process:
    script, kernel = cpu_bound()
    return with_stacks(process(script, kernel), [frames, [WORK]], hold={1: 0, 2: 1}, wait={1: 1, 2: 1})


def test_imports_are_told_as_such() -> None:
    frozen = ("_call_with_frames_removed", "<frozen importlib._bootstrap>", 241)
    made = importing(("<module>", "/srv/big.py", 3), frozen, ("handler", "/srv/app.py", 30))
    verdict = judge(made)
    assert verdict.kind == "cpu-bound-contention"
    assert verdict.summary.startswith("Imports: thread 'thread-2' waited ")
    assert "python -m compileall" in verdict.advice
    told = {found.cause: found for found in find_findings(made)}
    assert told["import"].victim == own_site("thread-*", *WORK)
    assert told["import"].culprit == own_site("thread-*", "<module>", "/srv/big.py", 3)
    assert "Most was lost to big (" in verdict.summary
    assert told["import"].summary.startswith("while other threads imported modules: big (")
    assert "Imports" not in judge(importing(("<module>", "/srv/big.py", 3))).summary


def test_a_librarys_modules_are_told_by_what_was_asked_for() -> None:
    """The line that imports has no name in it where it is a loop's over what is installed."""
    frozen = ("_call_with_frames_removed", "<frozen importlib._bootstrap>", 241)
    libraries = "/srv/venv/lib/python3.12/site-packages"
    inner = ("<module>", f"{libraries}/sqlalchemy/sql/base.py", 9)
    outer = ("<module>", f"{libraries}/sqlalchemy/orm/__init__.py", 3)
    summary = judge(importing(inner, frozen, outer, frozen, ("load", "/srv/app.py", 30))).summary
    assert "Most was lost to sqlalchemy.orm (" in summary
    assert "sql.base" not in summary


def test_what_imports_cost_is_a_share_of_the_whole_time() -> None:
    """On a busy machine the threads had less: what a reader sees beside it is how long the process took."""
    f = Costed(importing(("_call_with_frames_removed", "<frozen importlib._bootstrap>", 241)))
    quiet = imports(f)
    f.had //= 2
    busy = imports(f)
    assert quiet is not None
    assert quiet == busy
    assert quiet.evidence["import_share"] < 1


def test_native_code_with_a_lock_of_its_own_runs_one_thread_at_a_time() -> None:
    verdict = judge(serial())
    assert verdict.kind == "single-threaded"
    assert "2 threads called execute (app.py:9)" in verdict.summary
    assert "more threads help" not in verdict.advice
    assert judge(serial(together=True)).kind == "parallel"
    assert judge(replace(serial(), stacks=None)).kind != "parallel"
    # From two lines they may as well take turns by themselves.
    assert "of its own" not in judge(serial(lines=2)).advice


@pytest.mark.parametrize(("alone", "kind"), [(100, "parallel"), (300, "parallel"), (900, "single-threaded")])
def test_gils_need_not_be_used_at_once_all_the_time(alone: int, kind: str) -> None:
    script = Script(tids=(PID, 101), gils=2).acquire(0, 0, gil=0).acquire(alone * MS, 1, gil=1)
    end = (alone + 100) * MS
    script.release(end, 0, gil=0).release(end, 1, gil=1)
    kernel = Kernel().run(0, end, PID).run(alone * MS, end, 101, 1).ended(end, PID).ended(end, 101)
    assert judge(process(script, kernel)).kind == kind


def test_interpreters_of_which_one_does_little_do_not_lack_cores() -> None:
    """The second one has work for a fifth of the time, and waits for a core for 3 ms in each part of it."""
    script = Script(tids=(PID, 101), gils=2).acquire(0, 0, gil=0).release(1000 * MS, 0, gil=0)
    kernel = Kernel().run(0, 1000 * MS, PID)
    for at in range(0, 1000 * MS, 100 * MS):
        script.acquire(at, 1, gil=1).release(at + 21 * MS, 1, gil=1)
        kernel.run(at, at + MS, 101, 1, preempted=True).run(at + 4 * MS, at + 21 * MS, 101, 1)
    made = process(script, kernel.ended(1000 * MS, PID).ended(1000 * MS, 101))
    verdict = judge(made)
    assert "kept 1.2 cores busy on average" in verdict.summary
    assert "more interpreters help" in verdict.advice
    only = judge(replace(made, cores=Cores(1)))
    assert "could have used more" in only.summary
    assert "cores are" in only.advice


def on_one_core() -> Process:
    """Two threads run native code all the time, on one core."""
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel()
    script.hold(MS, MS + 50 * US, 1).hold(2 * MS, 2 * MS + 50 * US, 2)
    kernel.run(MS, 2 * MS, 101, preempted=True)
    for turn in range(100):
        at = 2 * MS + turn * 4 * MS
        kernel.run(at, at + 4 * MS, 102 - turn % 2, preempted=True)
    end = 402 * MS
    return process(script, kernel.ended(end, PID).ended(end, 101).ended(end, 102))


def test_cores_that_native_code_lacked_are_no_reason_for_more_threads() -> None:
    verdict = judge(on_one_core())
    assert verdict.kind == "parallel"
    assert "1.0 cores on average while anything ran, and could have used more" in verdict.summary
    assert "threads help" not in verdict.advice


def hashing(threads: int, *, cores: int = 2, others: int = 0) -> Process:
    """So many threads run native code in turns of 4 ms on two cores, of which other programs have so many."""
    tids = (PID, *range(101, 101 + threads))
    script, kernel = Script(tids=tids).hold(0, 10 * US, 0), Kernel()
    for at in range(1, threads + 1):
        script.hold(at * 100 * US, at * 100 * US + 50 * US, at)
        kernel.run(at * 100 * US, at * 100 * US + 50 * US, 100 + at, preempted=True)
    end, mine = 402 * MS, min(cores - others, threads)
    for turn in range(100):
        begin = 2 * MS + turn * 4 * MS
        for core in range(mine):
            kernel.run(begin, begin + 4 * MS, 101 + (turn * mine + core) % threads, core, preempted=True)
    for tid in tids:
        kernel.ended(end, tid)
    return replace(process(script, kernel), cores=Cores(cores))


@pytest.mark.parametrize(
    ("made", "had", "advice"),
    [
        (hashing(4), "had 2.0 cores on average while anything ran, and could have used more", "threads had all 2"),
        (hashing(2), "kept 2.0 cores busy", "the 2 cores that the process may use are all busy: more threads gain"),
        (hashing(2, cores=8), "kept 2.0 cores busy", "more threads help until the cores run out"),
        (hashing(4, others=1), "had 1.0 cores on average", "see what else ran on this machine"),
        (hashing(6, cores=4, others=2), "had 2.0 cores on average", "see what else ran on this machine"),
        (replace(hashing(4), cores=None), "had 2.0 cores on average", "see what else ran on this machine"),
        (replace(hashing(4), cores=Cores(64, 2.0)), "had 2.0 cores on average", "threads had all 2"),
    ],
)
def test_more_threads_help_only_until_the_cores_run_out(made: Process, had: str, advice: str) -> None:
    verdict = judge(made)
    assert verdict.kind == "parallel"
    assert had in verdict.summary
    assert advice in verdict.advice
    assert ("threads help" in verdict.advice) is ("threads help" in advice)


def test_many_hand_offs_are_told_where_nobody_waits() -> None:
    """Two threads wake each other 2,000 times, and have a core each."""
    script, kernel = Script().hold(0, 10 * US, 0), Kernel()
    for turn in range(2000):
        at = 20 * US + turn * 20 * US
        script.hold(at, at + 10 * US, 1 + turn % 2)
        kernel.run(at, at + 11 * US, 101 + turn % 2, turn % 2)
    verdict = judge(process(script, kernel.ended(at, PID).ended(at, 101).ended(at, 102)))
    assert verdict.kind == "io-bound-handoff"
    assert "hand the GIL on 49,988 times per second" in verdict.advice
    assert "times per second" not in judge(process(*io_bound())).advice


def taking_turns(hold_ns: int, wake_ns: int, period_ns: int) -> Process:
    """Threads 1 and 2 want the GIL at once in each period, and are off it for the rest; to wake up takes `wake_ns`."""
    script, kernel = Script().hold(0, 10 * US, 0), Kernel()
    for turn in range(40):
        at = 20 * US + turn * period_ns
        first, then = (1, 2) if turn % 2 else (2, 1)
        script.hold(at, at + hold_ns, first)
        script.hold(at + hold_ns + wake_ns, at + 2 * hold_ns, then, asked=at + 5 * US)
        kernel.run(at, at + hold_ns, 100 + first, 0).run(at + hold_ns, at + 2 * hold_ns, 100 + then, 1)
    end = at + period_ns
    return process(script, kernel.ended(end, PID).ended(end, 101).ended(end, 102))


def test_why_threads_wait_that_are_mostly_off_the_gil() -> None:
    long, brief = (
        judge(taking_turns(*times)) for times in ((1800 * US, 600 * US, 20 * MS), (90 * US, 5 * US, 600 * US))
    )
    assert (long.kind, brief.kind) == ("io-bound-handoff", "io-bound-handoff")
    assert "of the waiting passed while other threads ran Python code" in long.advice
    assert "processes, sub-interpreters" in long.advice
    assert "rest of brief turns" in brief.advice


def test_who_is_off_the_gil_is_told_where() -> None:
    made = with_stacks(
        process(*io_bound()), [[("join", LOCK[1], 1)], [("fetch", "/srv/app.py", 4)]], hold={0: 0, 1: 1, 2: 1}
    )
    assert "blocked at fetch (app.py:4) for 100.0%" in judge(made).advice


def test_a_server_is_told_in_its_own_words() -> None:
    run = ("run", "/usr/lib/python3.12/site-packages/uvicorn/server.py", 60)
    for made, other in ((cpu_bound(), "a free-threaded build"), (convoy(), "lower sys.setswitchinterval()")):
        plain = with_stacks(process(*made), [[WORK]], hold={1: 0, 2: 0}, wait={1: 0, 2: 0})
        served = with_stacks(process(*made), [[WORK, run]], hold={1: 0, 2: 0}, wait={1: 0, 2: 0})
        assert "uvicorn --workers N" in judge(served).advice
        assert "uvicorn" not in judge(plain).advice
        assert other in judge(served).advice


def test_a_server_within_another_is_told_as_the_outer_one() -> None:
    site = "/usr/lib/python3.12/site-packages"
    worker, tornado = ("run", f"{site}/distributed/worker.py", 9), ("start", f"{site}/tornado/httpserver.py", 4)
    stacks = [[WORK, tornado], [WORK, worker]]
    dask = judge(with_stacks(process(*cpu_bound()), stacks, hold={1: 0, 2: 1}, wait={1: 0, 2: 1}))
    assert "threads_per_worker=1" in dask.advice
    assert "tornado" not in dask.advice


def test_findings_say_what_each_cause_cost_whom_and_since_when() -> None:
    found, asked = find_findings(process(*hog()))
    assert (asked.cause, asked.ns) == ("contention", 5 * 5 * MS)
    assert (found.cause, found.waits, found.since_ns) == ("hog", 5, 20 * US + MS)
    assert 5 * 290 * MS < found.ns < 5 * 300 * MS
    assert found.max_ns < 300 * MS
    (found,) = find_findings(process(*convoy()))
    assert (found.cause, found.waits) == ("convoy", 100)
    assert find_findings(process(*parallel())) == ()


def test_a_wait_that_nobody_caused_has_no_culprit() -> None:
    """The GIL is free for 10 ms before a thread that waits for it has it."""
    script = Script(tids=(PID, 101)).hold(0, 100 * MS, 0).request(100 * MS, 1).acquire(110 * MS, 1).release(200 * MS, 1)
    kernel = Kernel().run(0, 101 * MS, PID).run(110 * MS, 200 * MS, 101).ended(200 * MS, PID).ended(200 * MS, 101)
    (found,) = find_findings(process(script, kernel))
    assert (found.cause, found.ns, found.culprit) == ("wake-up", 10 * MS, None)


def test_nobody_waits_for_himself() -> None:
    """The main thread waits for hogs of another, which at first run no longer than asked; that one waits for it less.

    What the main thread lost to contention is a small part of its waits, and the other's waits are lost to that alone.
    """
    script, kernel, at = Script(tids=(PID, 101)).hold(0, 10 * US, 0), Kernel(), 20 * US
    for _ in range(5):
        script.hold(at, at + 300 * MS, 1).request(at + MS, 0)
        for late in range(1, 59):
            script.timeout(at + MS + late * 5 * MS, 0)
        script.hold(at + 300 * MS + US, at + 302 * MS, 0).request(at + 301 * MS, 1)
        kernel.run(at, at + 300 * MS, 101, 1).run(at + 300 * MS + US, at + 302 * MS, PID)
        at += 302 * MS + US
    script.hold(at, at + US, 1)
    made = process(script, kernel.ended(at + US, PID).ended(at + US, 101))
    found = find_findings(
        with_stacks(made, [[WORK], [("collect", "/srv/app.py", 9)]], hold={0: 0, 1: 1}, wait={0: 0, 1: 1})
    )
    told = {one.cause: one for one in found}
    assert told["contention"].victim.function == "work"
    for one in (told["contention"], told["hog"]):
        assert one.culprit is not None
        assert one.culprit.function == "collect"


def test_one_core_is_no_place_for_processes() -> None:
    for cores, told in ((Cores(1), True), (Cores(4, 0.5), True), (Cores(4, 2.0), False), (None, False)):
        advice = judge(replace(process(*cpu_bound()), cores=cores)).advice
        assert ("one core only" in advice) == told
        assert ("use processes" in advice) != told
        assert ("more processes" in judge(replace(process(*single()), cores=cores)).advice) != told
        caught = replace(process(*convoy()), cores=cores)
        for text in (judge(caught).advice, find_findings(caught)[0].advice):
            assert "lower sys.setswitchinterval()" in text or not told
            assert ("one core only" in text) == told
            assert ("Move the CPU-bound work to other processes" in text) != told
        for lacking in (on_one_core(), process(*brief_steps(5 * US, 200 * US)), without_a_core()):
            advice = judge(replace(lacking, cores=cores)).advice
            assert ("one core only" in advice) == told
            assert ("see what else ran on this machine" in advice) != told
        # Two threads that run all the time have all that a quota of two leaves them.
        assert ("more threads help" in judge(replace(process(*parallel()), cores=cores)).advice) is (cores is None)
        assert ("an object of its own" in judge(replace(serial(), cores=cores)).advice) != told
        turns = replace(taking_turns(1800 * US, 600 * US, 20 * MS), cores=cores)
        assert ("processes, sub-interpreters" in judge(turns).advice) != told


def test_functions_in_files_of_the_same_name_are_not_one_line() -> None:
    """The main thread runs ``<string>`` line 3 too, another one, and joins at it."""
    module = ("<module>", "<string>", 3)
    sleeps = [("f", "<string>", 3)]
    for main in ([module], [LOCK, module]):
        made = with_stacks(process(*io_bound()), [main, sleeps], hold={0: 0, 1: 1, 2: 1})
        assert "blocked at f (<string>:3)" in judge(made).advice


def test_a_main_thread_that_joins_at_the_line_of_another_call_is_not_counted() -> None:
    """What a line led to decides whether it joins, not what else the same line led to."""
    module = ("<module>", "/srv/app.py", 3)
    script, kernel = Script(tids=(PID, 101)).hold(0, 10 * US, 0), Kernel().run(0, 10 * US, PID)
    # It runs at the line, then joins at it.
    script.hold(20 * MS, 21 * MS, 0).hold(100 * MS, 100 * MS + US, 1).hold(200 * MS, 200 * MS + US, 1)
    kernel.run(20 * MS, 21 * MS, PID).run(100 * MS, 100 * MS + US, 101).run(200 * MS, 200 * MS + US, 101)
    kernel.ended(400 * MS, PID).ended(201 * MS, 101)
    made = with_stacks(
        process(script, kernel),
        [[module], [("join", "/usr/lib/python3.11/threading.py", 1), module], [("f", "/srv/app.py", 9)]],
        hold={0: 0, 1: 2},
    )
    assert made.stacks is not None
    mine = np.flatnonzero(made.holds["thread"] == 0)
    made.stacks.hold_end[mine[-1]] = 1
    assert blocked_at(Figures(made)).startswith(" They are blocked at f (app.py:9)")

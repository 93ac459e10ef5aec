"""The replay without a GIL, against programs whose makespan can be worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.replay import rows
from giltrace.analysis.replay.cores import PLACING_NS, taken
from giltrace.analysis.replay.crews import fed_crews, levelled
from giltrace.analysis.replay.native_locks import Wakes
from giltrace.analysis.replay.program import read_program
from giltrace.analysis.replay.what_if import replay, what_if
from giltrace.timeline.model import HOLD, STATE, Cores, Process, State, Thread
from tests.unit.analysis_stacks import with_stacks
from tests.unit.block_events import Scene
from tests.unit.gil_events import MS, PID, US, Kernel, Script, process
from tests.unit.test_summary_verdict import convoy, cpu_bound

HR, HB, W, OR, OB = (
    State.HOLDING_RUNNING,
    State.HOLDING_BLOCKED,
    State.WAITING,
    State.OFF_RUNNING,
    State.OFF_BLOCKED,
)
Row = tuple[int, int, State]


def lives(*threads: list[Row], holds: tuple[tuple[int, int, int], ...] = ()) -> Process:
    """A process of threads given by their states in ms; `holds` (start, end, thread) tell who starts whom."""
    states = [(a * MS, b * MS, thread, int(state)) for thread, rows in enumerate(threads) for a, b, state in rows]
    held = [(a * MS, b * MS, thread, 0, -1, 0) for a, b, thread in holds]
    empty = process(Script().acquire(0, 0).release(1, 0))
    return replace(
        empty,
        start=0,
        end=max(row[1] for row in states),
        threads=tuple(Thread(PID + i, f"t{i}", rows[0][0] * MS, rows[-1][1] * MS) for i, rows in enumerate(threads)),
        states=np.array(states, STATE),
        holds=np.array(held, HOLD),
        has_sched=True,
    )


def in_turns(threads: int, turn: int, turns: int) -> list[list[Row]]:
    """Threads that hold the GIL in turns and wait in between."""
    end = threads * turn * turns
    rows: list[list[Row]] = [[] for _ in range(threads)]
    for at in range(threads * turns):
        for thread in range(threads):
            rows[thread].append((at * turn, (at + 1) * turn, HR if at % threads == thread else W))
    assert all(own[-1][1] == end for own in rows)
    return rows


@pytest.mark.parametrize(("threads", "cores", "makespan"), [(2, 2, 500), (4, 4, 250), (4, 2, 500), (2, 1, 1000)])
def test_threads_that_take_turns_run_side_by_side(threads: int, cores: int, makespan: int) -> None:
    found = what_if(lives(*in_turns(threads, 5, 200 // threads)), cores)
    assert found.measured_ns == 1000 * MS
    assert found.makespan_ns == makespan * MS
    assert found.speedup_bound == 1000 / makespan
    assert [point.cores for point in found.by_cores] == list(range(1, cores + 1))


def one_does_all(frame: tuple[str, str, int]) -> Process:
    """One of four threads does nearly all jobs, while the others wait for the GIL with the next ones."""
    made = Scene(5, {"job": [("job", "/srv/app.py", 1), frame]}).hold(0, 20 * US, 0, "start")
    made.hold(MS, 801 * MS, 1, "job")
    for thread in (2, 3, 4):
        made.script.request(MS + thread * US, thread)
        made.hold(801 * MS + thread * 10 * US, 801 * MS + thread * 10 * US + 5 * US, thread, "job")
    return made.process(802 * MS)


@pytest.mark.parametrize(
    ("frame", "bound"),
    [(("_worker", "/usr/lib/python3.12/concurrent/futures/thread.py", 80), 4), (("main", "/srv/app.py", 9), 1)],
)
def test_threads_that_take_jobs_share_them(frame: tuple[str, str, int], bound: int) -> None:
    """Who could not take a job while another thread had the GIL does so without one."""
    made = one_does_all(frame)
    assert what_if(made, 8).speedup_bound == pytest.approx(bound, rel=0.02)
    busy = np.array([0, 800, 0, 0, 0])
    assert levelled(busy, fed_crews(made)).max() == 800 // bound


def test_more_cores_than_threads_bring_nothing() -> None:
    found = what_if(lives(*in_turns(2, 5, 100)), 100)
    assert [p.cores for p in found.by_cores] == [1, 2, 3, 4, 5, 6, 7, 8, 16, 32, 64, 100]
    assert {p.makespan_ns for p in found.by_cores[1:]} == {500 * MS}


def test_sleep_stays() -> None:
    sleeper: list[Row] = [(0, 1, HR), (1, 1000, OB)]
    found = what_if(lives(sleeper, sleeper), 2)
    assert found.makespan_ns == found.measured_ns
    assert found.speedup_bound == 1.0


def test_joining_threads_shortens_with_them() -> None:
    main: list[Row] = [(0, 1, HR), (1, 1000, OB), (1000, 1002, HR)]
    one, two = ([(a + 1, b + 1, s) for a, b, s in rows] for rows in in_turns(2, 5, 100))
    two[-1] = (996, 1000, HR)
    joined = what_if(lives(main, one[:-1], two, holds=((0, 2, 0),)), 3)
    # They start after main's first millisecond, run for 500 and 499 ms, and main goes on for 2 ms.
    assert joined.makespan_ns == 503 * MS - 1 * MS
    slept = what_if(lives(main, [(1, 1, HR), *one[1:-20]], two[:-20], holds=((0, 2, 0),)), 3)
    assert slept.makespan_ns == 1002 * MS


def test_a_thread_starts_when_its_parent_gets_there() -> None:
    main: list[Row] = [(0, 100, W), (100, 150, HR), (150, 160, OR)]
    child: list[Row] = [(120, 160, HR)]
    code = read_program(lives(main, child, holds=((100, 150, 0), (150, 151, 1))), 2, Wakes.none())
    assert list(code.roots) == [0]
    # Without the wait main reaches that point after 20 ms.
    assert replay(code, 2) == 60 * MS
    assert replay(code, 1) == 100 * MS


def test_a_short_step_does_not_wait_for_a_long_one_to_end() -> None:
    long: list[Row] = [(0, 500, HR)]
    short: list[Row] = [(0, 1, HR), (1, 200, OB), (200, 201, HR), (201, 400, OB), (400, 401, HR)]
    code = read_program(lives(long, short), 1, Wakes.none())
    assert 503 * MS <= replay(code, 1) <= 504 * MS


def test_ready_while_others_had_the_cores_falls_away_but_other_programs_stay() -> None:
    script = Script().acquire(0, 0).release(100 * MS, 0).acquire(100 * MS, 1).release(200 * MS, 1)
    kernel = Kernel().born(0, 101).run(0, 100 * MS, PID).run(100 * MS, 200 * MS, 101)
    kernel.ended(200 * MS, PID).ended(200 * MS, 101).ended(0, 102)
    made = process(script, kernel)
    assert what_if(made, 1).makespan_ns == 200 * MS
    # With two cores, thread 1 was ready for 100 ms with a core to spare: something else kept it, but for the first
    # moments, in which the kernel looks for no better place than the core of thread 0.
    assert what_if(made, 2).makespan_ns == 200 * MS - PLACING_NS
    assert what_if(made, 2).by_cores[0].speedup_bound == 1.0


@pytest.mark.parametrize(("core", "lost"), [(0, 0), (1, 4)])
def test_nobody_took_the_core_on_which_a_thread_stands_behind_another_of_its_process(core: int, lost: int) -> None:
    script = Script().hold(0, 10 * MS, 0).hold(10 * MS, 20 * MS, 1)
    kernel = (
        Kernel().born(0, 101).run(0, 4 * MS, PID).run(4 * MS, 10 * MS, PID, 1 - core).run(4 * MS, 20 * MS, 101, core)
    )
    made = process(script, kernel.ended(20 * MS, PID).ended(20 * MS, 101))
    lacked = taken(made, 2, np.array([1], np.int32), np.array([0]), np.array([4 * MS]))
    assert lacked.tolist() == [lost * MS]
    # Of one core, which the other thread has, there is none that anybody else could have.
    assert taken(made, 1, np.array([1], np.int32), np.array([0]), np.array([4 * MS])).tolist() == [0]


def shared() -> Process:
    """Two threads with the GIL in turns, 10 ms each, and another program on their core in between for as long."""
    script, kernel = Script((PID, 101)), Kernel()
    for at in range(0, 400, 20):
        thread = at // 20 % 2
        tid = (PID, 101)[thread]
        script.hold(at * MS, (at + 20) * MS, thread, asked=max(at - 20, 0) * MS)
        kernel.on(at * MS, tid).off((at + 5) * MS, tid, preempted=True).run((at + 15) * MS, (at + 20) * MS, tid)
    return process(script, kernel.ended(400 * MS, PID).ended(400 * MS, 101))


@pytest.mark.parametrize("had", [None, Cores(1), Cores(2), Cores(2, 0.5), Cores(2, 1.5)])
def test_a_core_that_another_program_had_is_lacking_with_and_without_a_gil(had: Cores | None) -> None:
    found = what_if(replace(shared(), cores=had), 2)
    limited = had is not None and had.at_once == 1
    assert found.cores == (1 if limited else 2)
    assert found.makespan_ns == (400 * MS if limited else 200 * MS)
    assert found.speedup_bound == (1.0 if limited else 2.0)
    assert (found.on_all is not None) == (had in (Cores(1), Cores(2, 0.5), Cores(2, 1.5)))
    if found.on_all is not None:
        assert (found.on_all.cores, found.on_all.speedup_bound) == (2, 2.0)


def test_a_quota_leaves_no_more_than_it_grants() -> None:
    made = lives(*in_turns(2, 5, 100))
    assert what_if(replace(made, cores=Cores(2, 1.25)), 4).speedup_bound == 1.25
    assert what_if(replace(made, cores=Cores(2, 1.25)), 4).quota == 1.25
    assert what_if(replace(made, cores=Cores(2, 3.0)), 4).quota is None
    assert what_if(replace(made, cores=Cores(4, 2.0)), 4).speedup_bound == 2.0


@pytest.mark.parametrize("seed", range(12))
def test_bounds_are_at_least_one_at_most_the_cores_and_never_less_on_more(seed: int) -> None:
    random = np.random.default_rng(seed)
    script, kernel = Script((PID, 101, 102)), Kernel()
    now = 0
    for _ in range(60):
        thread = int(random.integers(3))
        start, end = now + int(random.integers(MS)), now + int(random.integers(MS, 6 * MS))
        script.hold(start, end, thread, asked=int(random.integers(now, start + 1)))
        if random.random() < 0.8:
            middle = int(random.integers(start, end))
            kernel.on(start, (PID, 101, 102)[thread]).off(middle, (PID, 101, 102)[thread], preempted=True)
            kernel.run(int(random.integers(middle, end)), end, (PID, 101, 102)[thread])
        now = end
    made = process(script, kernel.ended(now, PID).ended(now, 101).ended(now, 102))
    for machine, had in ((1, None), (4, None), (4, Cores(1)), (4, Cores(3, 1.5)), (4, Cores(2))):
        found = what_if(replace(made, cores=had), machine)
        bounds = [point.speedup_bound for point in (*found.by_cores, *([found.on_all] if found.on_all else []))]
        assert bounds == sorted(bounds)
        assert all(1 <= point.speedup_bound <= point.cores for point in found.by_cores)


def test_many_steps_are_coarsened_and_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    script, kernel = convoy(300)
    made = process(script, kernel)
    fine = what_if(made, 2)
    steps = len(read_program(made, 2, Wakes.none()).cpu)
    monkeypatch.setattr(rows, "MOST_STEPS", 50)
    assert len(read_program(made, 2, Wakes.none()).cpu) < 150 < steps
    assert what_if(made, 2).makespan_ns == pytest.approx(fine.makespan_ns, rel=0.05)


def test_synthetic_workloads() -> None:
    script, kernel = cpu_bound()
    assert what_if(process(script, kernel), 2).speedup_bound == pytest.approx(2, rel=0.05)
    # Without scheduling data holds are what needs a core: the same answer here.
    assert what_if(process(script), 2).speedup_bound == pytest.approx(2, rel=0.05)


def test_nothing_to_replay() -> None:
    empty = process(Script().acquire(0, 0).release(5, 0))
    bare = replace(empty, threads=(), holds=empty.holds[:0], end=empty.start)
    assert what_if(bare, 0).speedup_bound == 1.0
    assert what_if(bare, 0).cores == 1


def test_blocked_while_holding_is_kept() -> None:
    found = what_if(lives([(0, 100, HB), (100, 200, W)], [(0, 100, W), (100, 200, HB)]), 2)
    assert found.makespan_ns == 100 * MS


def test_a_thread_that_sleeps_until_the_end_holds_nothing_up() -> None:
    one, two = in_turns(2, 5, 100)
    idle: list[Row] = [(0, 1, OR), (1, 1000, OB)]
    assert what_if(lives(one, two, idle), 4).makespan_ns == 500 * MS


def pool() -> Process:
    """Two threads take turns for a second; a third one sleeps from 1 ms on, and runs again at 995 ms."""
    one, two = in_turns(2, 5, 100)
    idle: list[Row] = [(0, 1, OR), (1, 995, OB), (995, 996, OR)]
    return lives(one, two, idle, holds=((0, 1, 2), (1, 5, 0), (990, 1000, 1)))


@pytest.mark.parametrize(
    ("file", "makespan"),
    [("/usr/lib/python3.13/threading.py", 500), ("/usr/lib/python3.13/queue.py", 500), ("/srv/app/poll.py", 996)],
)
def test_who_waits_for_a_lock_is_woken_by_its_waker(file: str, makespan: int) -> None:
    told = with_stacks(pool(), [[("wait", file, 359)]], hold={2: 0})
    assert abs(what_if(told, 4).makespan_ns - makespan * MS) <= 2 * MS
    assert what_if(pool(), 4).makespan_ns == 996 * MS


def test_who_is_woken_in_code_of_its_own_is_told_by_a_second_bound() -> None:
    told = with_stacks(pool(), [[("ask", "/srv/app/ask.py", 7)]], hold={2: 0})
    for made in (told, pool()):
        found = what_if(made, 4)
        assert found.speedup_bound == pytest.approx(1.0, abs=0.01)
        assert found.woken_bound == pytest.approx(2.0, abs=0.02)


def test_who_is_woken_late_is_woken_all_the_same() -> None:
    late = pool()
    # The two end at 960 ms; the one that waits for a lock has a core from 995 ms on only.
    states = late.states.copy()
    states = states[(states["thread"] == 2) | (states["start"] < 960 * MS)]
    holds = late.holds.copy()
    holds["end"][2], holds["start"][2] = 960 * MS, 950 * MS
    late = replace(late, states=states, holds=holds)
    told = with_stacks(late, [[("wait", "/usr/lib/python3.13/threading.py", 359)]], hold={2: 0})
    assert what_if(told, 4).makespan_ns <= 500 * MS
    slept = with_stacks(late, [[("poll", "/srv/app/poll.py", 5)]], hold={2: 0})
    assert what_if(slept, 4).makespan_ns >= 990 * MS


def test_a_circle_of_waits_comes_to_an_end() -> None:
    one = [(0, 5, HR), (5, 10, OB), (10, 15, HR)]
    code = read_program(lives(one, one), 2, Wakes.none())
    circle = code._replace(awaits=np.array([-1, 3, -1, 1]))
    assert len(code.cpu) == 4
    assert replay(circle, 2) == 10 * MS

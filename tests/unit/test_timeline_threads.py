"""Who lived when, ran where, and was in which state."""

from __future__ import annotations

import numpy as np

from giltrace.recording.events import SPAN, Spans
from giltrace.timeline.model import Process, State
from tests.unit.gil_events import PID, Kernel, Script, process, rows, timeline

S = State


def lives(built: Process) -> list[tuple[int, int, int]]:
    return [(t.tid, t.start, t.end) for t in built.threads]


def states(built: Process, thread: int) -> list[tuple[int, int, State]]:
    own = built.states[built.states["thread"] == thread]
    return [(start, end, State(state)) for start, end, state in rows(own, "start", "end", "state")]


class TestStates:
    def test_each_of_the_seven(self) -> None:
        script = Script(tids=(PID, 101)).acquire(10, 0).release(60, 0).request(100, 1).acquire(120, 1).release(130, 1)
        kernel = Kernel().born(5, 101).ended(200, PID).ended(200, 101)
        kernel.run(0, 20, PID, preempted=True).run(30, 40, PID).run(50, 70, PID, preempted=True).run(80, 90, PID)
        kernel.run(95, 200, 101, core=1)
        built = process(script, kernel, end=200)
        assert states(built, 0) == [
            (0, 10, S.OFF_RUNNING),
            (10, 20, S.HOLDING_RUNNING),
            (20, 30, S.HOLDING_RUNNABLE),
            (30, 40, S.HOLDING_RUNNING),
            (40, 50, S.HOLDING_BLOCKED),
            (50, 60, S.HOLDING_RUNNING),
            (60, 70, S.OFF_RUNNING),
            (70, 80, S.OFF_RUNNABLE),
            (80, 90, S.OFF_RUNNING),
            (90, 200, S.OFF_BLOCKED),
        ]
        assert states(built, 1) == [
            (5, 95, S.OFF_RUNNABLE),
            (95, 100, S.OFF_RUNNING),
            (100, 120, S.WAITING),
            (120, 130, S.HOLDING_RUNNING),
            (130, 200, S.OFF_RUNNING),
        ]

    def test_waiting_hides_what_the_core_does(self) -> None:
        script = Script(tids=(PID, 101)).acquire(10, 0).request(20, 1).release(80, 0).acquire(90, 1).release(95, 1)
        kernel = Kernel().ended(99, PID).ended(99, 101).run(0, 99, PID)
        kernel.run(15, 25, 101, 1).run(30, 40, 101, 1, preempted=True).run(85, 99, 101, 1)
        assert states(process(script, kernel), 1)[1:3] == [(15, 20, S.OFF_RUNNING), (20, 90, S.WAITING)]

    def test_a_thread_that_is_runnable_when_it_ends_does_not_leak_into_the_next(self) -> None:
        script = Script(tids=(PID, 101)).acquire(10, 0).release(20, 0).acquire(30, 1).release(40, 1)
        kernel = Kernel().ended(100, PID).ended(100, 101).run(0, 50, PID, preempted=True).run(20, 100, 101, 1)
        built = process(script, kernel)
        assert states(built, 0)[-1] == (50, 100, S.OFF_RUNNABLE)
        assert states(built, 1)[0] == (0, 20, S.OFF_BLOCKED)

    def test_a_thread_that_never_ran(self) -> None:
        script = Script(tids=(PID,)).acquire(10, 0).release(20, 0)
        kernel = Kernel().run(0, 50, PID).born(30, 101).ended(50, 101).ended(50, PID)
        assert states(process(script, kernel), 1) == [(30, 50, S.OFF_RUNNABLE)]

    def test_none_without_scheduling_data(self) -> None:
        built = process(Script().acquire(10, 0).release(20, 0))
        assert not built.has_sched
        assert len(built.states) == len(built.runs) == 0


class TestLifetimes:
    def test_from_records_without_scheduling_data(self) -> None:
        script = Script(start=5).acquire(10, 0).release(20, 0).acquire(30, 1).release(40, 1).end(45, 1)
        script.acquire(50, 2).release(60, 2).acquire(70, 0).release(80, 0)
        # The second thread said that it ended; the others lived on with the process.
        assert lives(process(script)) == [(PID, 5, 80), (101, 30, 45), (102, 50, 80)]

    def test_from_the_kernel(self) -> None:
        script = Script(tids=(PID, 101), start=5).acquire(10, 0).release(20, 0).acquire(30, 1).release(40, 1)
        kernel = Kernel().run(0, 100, PID).born(25, 101).run(27, 55, 101, 1).ended(55, 101).ended(100, PID)
        built = process(script, kernel, end=300)
        assert lives(built) == [(PID, 5, 100), (101, 25, 55)]
        assert (built.start, built.end) == (5, 100)

    def test_a_thread_that_never_touched_a_gil_has_the_name_that_the_kernel_knows(self) -> None:
        script = Script(tids=(PID,)).acquire(10, 0).release(20, 0)
        kernel = Kernel(names={150: "blas"}).run(0, 100, PID).born(25, 150).run(30, 60, 150, 1).ended(60, 150)
        kernel.ended(100, PID)
        built = process(script, kernel)
        assert (built.threads[1].tid, built.threads[1].name) == (150, "blas")
        assert rows(built.runs, "start", "end", "thread", "core") == [(0, 100, 0, 0), (30, 60, 1, 1)]

    def test_a_reused_tid_is_two_threads(self) -> None:
        script = Script(tids=(PID, 101, 101)).acquire(5, 0).release(6, 0)
        script.acquire(20, 1).release(22, 1).end(23, 1).acquire(50, 2).release(52, 2).end(53, 2)
        kernel = Kernel().run(0, 100, PID).ended(100, PID)
        kernel.born(15, 101).run(16, 25, 101, 1).ended(25, 101).born(45, 101).run(47, 55, 101, 1).ended(55, 101)
        built = process(script, kernel)
        assert lives(built) == [(PID, 0, 100), (101, 15, 25), (101, 45, 55)]
        assert rows(built.runs, "start", "end", "thread") == [(0, 100, 0), (16, 25, 1), (47, 55, 2)]

    def test_two_traced_threads_in_one_life_share_it(self) -> None:
        script = Script(tids=(PID, 101, 101)).acquire(5, 0).release(6, 0)
        script.acquire(20, 1).release(22, 1).acquire(50, 2).release(52, 2)
        kernel = Kernel().run(0, 100, PID).ended(100, PID).born(15, 101).run(16, 90, 101, 1).ended(90, 101)
        built = process(script, kernel)
        assert lives(built)[1:] == [(101, 15, 50), (101, 50, 90)]
        assert rows(built.runs, "start", "end", "thread")[1:] == [(16, 50, 1), (50, 90, 2)]
        assert built.violations == ()

    def test_a_thousand_short_threads_with_few_tids(self) -> None:
        script, kernel = Script(tids=[PID] + [101 + i % 50 for i in range(1000)]), Kernel().run(0, 100_100, PID)
        script.acquire(1, 0).release(2, 0)
        for i in range(1000):
            at, tid = 100 * (i + 1), 101 + i % 50
            kernel.born(at, tid).run(at + 5, at + 60, tid, 1).ended(at + 60, tid)
            script.acquire(at + 10, i + 1).release(at + 40, i + 1).end(at + 50, i + 1)
        built = process(script, kernel.ended(100_100, PID))
        assert lives(built)[1:] == [(101 + i % 50, 100 * (i + 1), 100 * (i + 1) + 60) for i in range(1000)]
        held = built.states[built.states["state"] == S.HOLDING_RUNNING]
        assert np.bincount(held["thread"]).tolist() == [1] * 1001
        assert built.violations == ()


class TestProcesses:
    def test_an_exec_splits_the_runs_of_a_pid_by_time(self) -> None:
        one = Script(tids=(PID,), start=10).acquire(15, 0)
        two = Script(tids=(PID,), start=100).acquire(110, 0).release(120, 0)
        kernel = Kernel().run(0, 50, PID).run(60, 130, PID, 1).ended(130, PID)
        built = timeline([one.events(), two.events()], kernel)
        first, second = built.processes
        assert (first.start, first.end, second.start, second.end) == (10, 100, 100, 130)
        assert rows(first.runs, "start", "end", "core") == [(10, 50, 0), (60, 100, 1)]
        assert rows(second.runs, "start", "end", "core") == [(100, 130, 1)]
        assert rows(first.holds, "start", "end") == [(15, 100)]
        # What ran under this pid before the tracer was there belongs to no traced thread.
        assert [(t.pid, t.tid) for t in built.other_tasks] == [(PID, PID)]
        assert rows(built.other_runs, "start", "end") == [(0, 10)]
        assert built.violations == ()

    def test_a_forked_child_is_a_process_of_its_own(self) -> None:
        parent = Script(tids=(PID,)).acquire(10, 0).release(90, 0)
        child = Script(tids=(200,), pid=200, start=40).acquire(40, 0).release(70, 0)
        kernel, below = Kernel().run(0, 95, PID).ended(95, PID), Kernel(pid=200).born(38, 200).run(39, 80, 200, 1)
        kernel.switches += below.switches
        kernel.tasks += below.ended(80, 200).tasks
        built = timeline([parent.events(), child.events()], kernel)
        assert lives(built.processes[1]) == [(200, 40, 80)]
        assert rows(built.processes[1].runs, "start", "end") == [(40, 80)]
        assert built.violations == ()

    def test_other_programs_keep_their_runs(self) -> None:
        shell = Kernel(pid=50, names={50: "sh"}).run(0, 5, 50, 1).run(90, 95, 50, 1)
        built = timeline(Script(tids=(PID,)).acquire(1, 0).release(2, 0), shell)
        assert [(t.pid, t.tid, t.name) for t in built.other_tasks] == [(50, 50, "sh")]
        assert rows(built.other_runs, "start", "end", "thread", "core") == [(0, 5, 0, 1), (90, 95, 0, 1)]
        assert not built.processes[0].has_sched

    def test_spans_follow_their_process(self) -> None:
        def spans(pid: int) -> Spans:
            return Spans("viztracer", pid, False, ("f",), np.array([(10, 20, pid, 0, 0), (110, 115, pid, 0, 0)], SPAN))

        one = Script(tids=(PID,), start=10).acquire(15, 0).release(20, 0)
        two = Script(tids=(PID,), start=100).acquire(110, 0).release(120, 0)
        built = timeline([one.events(), two.events()], None, [spans(PID), spans(300)])
        assert [rows(p.spans[0].spans, "start") for p in built.processes] == [[(10,)], [(110,)], [(10,), (110,)]]
        sampled = built.processes[2]
        assert (sampled.pid, sampled.note, lives(sampled)) == (300, "no GIL events were recorded", [(300, 10, 115)])

    def test_start_and_end_widen_to_what_was_recorded(self) -> None:
        built = timeline(Script(start=40).acquire(50, 0).release(99, 0), start=60, end=70)
        assert (built.start, built.end) == (40, 99)


class TestSwitches:
    def test_a_run_whose_end_was_not_reported_ends_with_the_thread(self) -> None:
        script = Script(tids=(PID, 101)).acquire(10, 0).release(20, 0).acquire(30, 1).release(40, 1)
        kernel = Kernel().run(0, 100, PID).ended(100, PID).born(25, 101).on(26, 101, 1).ended(44, 101)
        assert rows(process(script, kernel).runs, "start", "end", "thread")[1] == (26, 44, 1)

    def test_a_run_whose_end_was_lost_ends_where_another_thread_takes_the_core(self) -> None:
        script = Script(tids=(PID, 101)).acquire(10, 0).release(20, 0).acquire(30, 1).release(40, 1)
        kernel = Kernel(lost=1).on(0, PID, 0).run(35, 60, 101, 0).run(70, 80, PID, 1).ended(80, PID).ended(80, 101)
        assert rows(process(script, kernel).runs, "start", "end", "thread") == [(0, 35, 0), (70, 80, 0), (35, 60, 1)]

    def test_a_run_that_began_before_the_recording(self) -> None:
        script = Script(tids=(PID,), start=5).acquire(10, 0).release(20, 0)
        kernel = Kernel().off(30, PID, 0).run(40, 50, PID, 0).ended(50, PID)
        assert rows(process(script, kernel).runs, "start", "end") == [(5, 30), (40, 50)]

    def test_the_last_moments_after_the_reported_end_still_belong_to_the_thread(self) -> None:
        script = Script(tids=(PID,)).acquire(10, 0).release(20, 0)
        built = timeline(script, Kernel().on(0, PID).ended(50, PID).off(53, PID))
        assert rows(built.processes[0].runs, "start", "end") == [(0, 53)]
        assert len(built.other_runs) == 0

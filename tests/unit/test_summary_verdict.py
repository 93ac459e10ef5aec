"""One synthetic process for each kind of verdict, and the borders between them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.kinds import KINDS
from giltrace.timeline.model import Cores, Process
from tests.unit.gil_events import MS, PID, US, Kernel, Script, process
from tests.unit.lock_scenes import in_a_circle, stopped, taking_turns


def cpu_bound(*, forced_every: int = 5 * MS, turns: int = 200) -> tuple[Script, Kernel]:
    """Two threads count; each drops the GIL as soon as it is asked to."""
    script = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0)
    last_release = {1: 20 * US, 2: 20 * US}
    kernel, at = Kernel(), 50 * US
    for turn in range(turns):
        thread = 1 + turn % 2
        end = at + forced_every
        script.hold(at, end, thread, asked=last_release[thread], forced=True)
        kernel.run(at - 5 * US, end, 100 + thread, thread % 2)
        last_release[thread] = end + 5 * US
        at = end + 20 * US
    for tid in (PID, 101, 102):
        kernel.ended(at, tid)
    return script, kernel.run(0, 15 * US, PID)


def convoy(steps: int = 100) -> tuple[Script, Kernel]:
    """Thread 1 counts; thread 2 sleeps 1 ms, waits about 5 ms, holds 10 us."""
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel()
    at = 20 * US
    asked: int | None = None
    for _ in range(steps):
        wants = at + MS
        end = wants + 5 * MS + 10 * US
        script.hold(at, end, 1, asked=asked, forced=True).request(wants, 2).timeout(wants + 5 * MS, 2)
        kernel.run(at, end, 101, 1)
        asked = end + US
        script.acquire(end + 10 * US, 2).release(end + 20 * US, 2)
        kernel.run(end + 5 * US, end + 25 * US, 102, 0)
        at = end + 30 * US
    return script, kernel.ended(at, PID).ended(at, 101).ended(at, 102)


def hog() -> tuple[Script, Kernel]:
    """Thread 1 keeps the GIL in C code for 300 ms at a time, thread 2 wants it."""
    script, kernel, at = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel(), 20 * US
    for _ in range(5):
        script.hold(at, at + 300 * MS, 1).request(at + MS, 2)
        for i in range(1, 59):
            script.timeout(at + MS + i * 5 * MS, 2)
        script.acquire(at + 300 * MS + 10 * US, 2).release(at + 300 * MS + 30 * US, 2)
        kernel.run(at, at + 300 * MS, 101, 1)
        at += 301 * MS
    return script, kernel.ended(at, PID).ended(at, 101).ended(at, 102)


def parallel() -> tuple[Script, Kernel]:
    """Two threads hash: 100 us with the GIL, 10 ms without it, at the same time on two cores."""
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel()
    end = 0
    for step in range(50):
        for thread in (1, 2):
            at = MS + step * 10 * MS + thread * 200 * US
            script.hold(at, at + 100 * US, thread)
            kernel.run(at, at + 9900 * US, 100 + thread, thread - 1)
            end = at + 10 * MS
    return script, kernel.ended(end, PID).ended(end, 101).ended(end, 102)


def io_bound() -> tuple[Script, Kernel]:
    """Two threads sleep 2 s, the main thread joins them."""
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 20 * MS, 0), Kernel().run(0, 20 * MS, PID)
    for thread, tid in ((1, 101), (2, 102)):
        at = 21 * MS + thread * MS
        kernel.born(at - 100 * US, tid)
        for begin in (at, at + 2000 * MS):
            script.hold(begin, begin + 50 * US, thread)
            kernel.run(begin - 10 * US, begin + 60 * US, tid, thread - 1)
        kernel.ended(at + 2001 * MS, tid)
    script.hold(2030 * MS, 2032 * MS, 0)
    return script, kernel.run(2030 * MS, 2033 * MS, PID).ended(2033 * MS, PID)


def single() -> tuple[Script, Kernel]:
    return Script(tids=(PID,)).hold(0, 900 * MS, 0), Kernel().run(0, 950 * MS, PID).ended(1000 * MS, PID)


def idle() -> tuple[Script, Kernel]:
    return Script(tids=(PID,)).hold(0, 10 * MS, 0), Kernel().run(0, 11 * MS, PID).ended(5000 * MS, PID)


def kind(script: Script, kernel: Kernel | None) -> str:
    return judge(process(script, kernel)).kind


def test_cpu_bound_contention() -> None:
    verdict = judge(process(*cpu_bound()))
    assert verdict.kind == "cpu-bound-contention"
    assert verdict.evidence["contenders"] == 2
    assert verdict.evidence["contended_share"] > 0.9
    # Each turn but the very first was asked for after 5 ms.
    assert verdict.evidence["switch_requests"] == 199
    assert "199 switch requests" in verdict.summary


def test_convoy() -> None:
    verdict = judge(process(*convoy()))
    assert verdict.kind == "convoy"
    assert verdict.evidence["steps"] == 100
    assert verdict.evidence["median_wait_ns"] == 5 * MS + 20 * US
    assert "'thread-2' made 100 short steps" in verdict.summary


def test_a_few_steps_are_no_convoy() -> None:
    assert kind(*convoy(steps=9)) != "convoy"


def test_hog() -> None:
    verdict = judge(process(*hog()))
    assert verdict.kind == "hog"
    assert verdict.evidence["hogs"] == 5
    assert verdict.evidence["longest_overstay_ns"] == 294 * MS
    assert "'thread-1'" in verdict.summary


def test_a_holder_without_a_core_is_no_hog() -> None:
    script, kernel = hog()
    kernel.switches = [s for s in kernel.switches if s[2] != 101]
    at = 20 * US
    for _ in range(5):
        kernel.run(at, at + 8 * MS, 101, 1, preempted=True).run(at + 299 * MS, at + 300 * MS, 101, 1)
        at += 301 * MS
    assert kind(script, kernel) != "hog"


@pytest.mark.parametrize(("held", "found"), [(30 * MS, False), (300 * MS, True)])
def test_without_context_switches_only_a_long_hold_is_a_hog(held: int, found: bool) -> None:
    """A shorter one may just have had no core."""
    script, at = Script().hold(0, 10 * US, 0), MS
    for _ in range(10):
        script.acquire(at, 1).request(at + MS, 2).timeout(at + 6 * MS, 2).release(at + held, 1)
        script.acquire(at + held + US, 2).release(at + held + 9 * US, 2)
        at += held + MS
    assert (kind(script, None) == "hog") is found


def test_what_is_off_the_gil_is_called_io_only_where_the_kernel_was_asked() -> None:
    assert kind(parallel()[0], None) == "io-bound-handoff"
    verdict = judge(process(parallel()[0], None))
    assert "I/O" not in verdict.summary + verdict.advice


def test_parallel() -> None:
    verdict = judge(process(*parallel()))
    assert verdict.kind == "parallel"
    assert verdict.evidence["off_running_ratio"] > 50
    assert 1.5 < verdict.evidence["cores_ratio"] <= 2


def test_native_code_one_after_the_other_is_not_parallel() -> None:
    script, kernel = Script(tids=(PID, 101)).hold(0, US, 0), Kernel().run(0, 500 * MS, PID)
    script.hold(500 * MS, 500 * MS + US, 1)
    kernel.run(500 * MS, 1000 * MS, 101).ended(1000 * MS, PID).ended(1000 * MS, 101)
    assert kind(script, kernel) != "parallel"


def test_interpreters_with_a_gil_each_are_parallel() -> None:
    script = Script(tids=(PID, 101), gils=2).acquire(0, 0, gil=0).acquire(MS, 1, gil=1)
    script.release(500 * MS, 0, gil=0).release(500 * MS, 1, gil=1)
    kernel = Kernel().run(0, 501 * MS, PID).run(MS, 501 * MS, 101, 1).ended(501 * MS, PID).ended(501 * MS, 101)
    verdict = judge(process(script, kernel))
    assert verdict.kind == "parallel"
    assert "2 GILs, 2.0 of them held at once on average, kept 2.0 cores busy" in verdict.summary


def test_interpreters_that_lack_cores_are_not_told_to_be_more() -> None:
    script = Script(tids=(PID, 101), gils=2).acquire(0, 0, gil=0).acquire(MS, 1, gil=1)
    script.release(500 * MS, 0, gil=0).release(500 * MS, 1, gil=1)
    kernel = Kernel()
    for at in range(0, 500 * MS, 10 * MS):  # one core, in turns
        kernel.run(at, at + 5 * MS, PID, preempted=True).run(at + 5 * MS, at + 10 * MS, 101, preempted=True)
    verdict = judge(process(script, kernel.ended(500 * MS, PID).ended(500 * MS, 101)))
    assert "2 GILs, 2.0 of them held at once on average, had 1.0 cores on average" in verdict.summary
    assert "more interpreters help" not in verdict.advice
    assert "cores are" in verdict.advice


def test_io_bound_handoff() -> None:
    verdict = judge(process(*io_bound()))
    assert verdict.kind == "io-bound-handoff"
    assert verdict.evidence["contended_share"] == 0
    assert verdict.evidence["off_gil_share"] > 0.98


def test_single_threaded() -> None:
    verdict = judge(process(*single()))
    assert verdict.kind == "single-threaded"
    assert verdict.evidence["top_held_share"] == 1


def test_one_busy_thread_among_sleepers_is_single_threaded() -> None:
    script, kernel = single()
    script.tids = (PID, 101)
    script.hold(901 * MS, 902 * MS, 1)
    assert kind(script, kernel.run(901 * MS, 902 * MS, 101)) == "single-threaded"


def test_idle() -> None:
    verdict = judge(process(*idle()))
    assert verdict.kind == "idle"
    assert verdict.evidence["running_share"] < 0.01


def test_free_threaded_by_the_interpreter_s_own_word() -> None:
    script = Script(tids=(), python="3.14.0 free-threading build (main)")
    assert kind(script, Kernel().run(0, 100 * MS, PID)) == "free-threaded"
    assert kind(Script(tids=(), note="free-threaded build: no use of a GIL was seen"), None) == "free-threaded"


def test_a_free_threaded_build_with_its_gil_enabled_is_judged_like_any_other() -> None:
    script, kernel = single()
    script.python = "3.14.0 free-threading build (main)"
    assert kind(script, kernel) == "single-threaded"


def test_without_records_nothing_is_claimed() -> None:
    verdict = judge(process(Script(tids=(), note="static build without symbols")))
    assert verdict.kind == "not-recorded"
    assert "static build without symbols" in verdict.summary


def test_the_kinds_that_need_no_cores_are_found_without_scheduling_data() -> None:
    found = [kind(make()[0], None) for make in (cpu_bound, convoy, hog, io_bound, single)]
    assert found == ["cpu-bound-contention", "convoy", "hog", "io-bound-handoff", "single-threaded"]


def test_every_kind_has_a_sentence_and_advice() -> None:
    made: list[Process] = [process(*make()) for make in (cpu_bound, convoy, hog, parallel, io_bound, single, idle)]
    made += [process(Script(tids=())), process(Script(tids=(), note="free-threaded build"))]
    made += [taking_turns().process(200 * MS), stopped().process(100 * MS, free_threaded=True)]
    made += [in_a_circle().process(500 * MS)]
    verdicts = [judge(one) for one in made]
    assert {v.kind for v in verdicts} == set(KINDS)
    assert all(v.summary.endswith(".") and v.advice.endswith((".", "takes.")) for v in verdicts)


def test_an_event_loop_with_two_holds_per_step_is_in_a_convoy() -> None:
    """Only one of the two has to wait: the selector gives the GIL up for a moment and has it again."""
    script, at = Script(), 0
    for _ in range(30):
        end = at + 6 * MS
        script.acquire(at, 1).request(at + MS, 2).timeout(end, 2).release(end, 1, forced=True)
        for begin in (end + US, end + 20 * US, end + 40 * US):
            script.acquire(begin, 2).release(begin + 10 * US, 2)
        at = end + 60 * US
    assert judge(process(script)).kind == "convoy"


def in_turns() -> Process:
    """Five threads share the only core: each computes for 0.85 ms, sleeps for 0.2, and waits for the other four."""
    script, kernel, at = Script(tids=(PID, *range(101, 106))).hold(0, 10 * US, 0), Kernel(), 20 * US
    last: dict[int, int] = {}
    for turn in range(400):
        thread = 1 + turn % 5
        script.hold(at, at + 850 * US, thread, asked=last.get(thread))
        kernel.run(at, at + 850 * US, 100 + thread)
        last[thread] = at + 1050 * US
        at += 851 * US
    for tid in (PID, *range(101, 106)):
        kernel.ended(at, tid)
    return replace(process(script, kernel), cores=Cores(1))


def test_brief_turns_that_wait_for_each_other_are_contention_and_no_convoy() -> None:
    """Nobody is asked to stop: no switch interval and no other process changes what they wait for."""
    verdict = judge(in_turns())
    assert verdict.kind == "cpu-bound-contention"
    assert verdict.evidence["switch_requests"] == 0
    assert "one core only" in verdict.advice


def starved(steps: int = 40) -> tuple[Script, Kernel]:
    """Two threads run native code; one loses its core for 11 ms as it comes to take the GIL, the other waits for it."""
    script, kernel, at = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel(), MS
    for _ in range(steps):
        back, end = at + 12 * MS, at + 20 * MS
        script.acquire(at, 1).request(at, 2).timeout(at + 5 * MS, 2).release(back, 1, forced=True)
        script.acquire(back + US, 2).release(back + 50 * US, 2)
        kernel.run(at, at + 600 * US, 101, 0, preempted=True).run(back - 100 * US, end - US, 101, 0, preempted=True)
        kernel.run(back, end - US, 102, 1)
        at = end
    return script, kernel.ended(at, PID).ended(at, 101).ended(at, 102)


def test_waiting_for_a_holder_without_a_core_is_no_convoy() -> None:
    verdict = judge(process(*starved()))
    assert verdict.kind == "parallel"


def test_a_convoy_on_a_busy_machine_is_a_convoy() -> None:
    """Of each 15 ms that the step waits, who counts has a core for 5."""
    script, kernel, at = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel(), 20 * US
    for _ in range(40):
        wants = at + MS
        end = wants + 15 * MS
        script.acquire(at, 1).request(wants, 2).timeout(wants + 5 * MS, 2).release(end, 1, forced=True)
        kernel.run(at, wants + 4 * MS, 101, 1, preempted=True).run(end - MS, end, 101, 1)
        script.acquire(end + 10 * US, 2).release(end + 20 * US, 2)
        kernel.run(end + 5 * US, end + 25 * US, 102, 0)
        at = end + 30 * US
    assert kind(script, kernel.ended(at, PID).ended(at, 101).ended(at, 102)) == "convoy"


def ping_pong(turns: int = 2000, late: int = 30 * US) -> tuple[Script, Kernel]:
    """Threads 1 and 2 wake each other: each runs for 10 us, asks for the GIL a little early, and gets it late."""
    script, kernel, at = Script().hold(0, 10 * US, 0), Kernel(), 20 * US
    for turn in range(turns):
        thread = 1 + turn % 2
        script.request(at - US // 2, thread).acquire(at + late, thread).release(at + late + 10 * US, thread)
        kernel.run(at - US // 2, at + late + 10 * US, 100 + thread, turn % 2)
        at += late + 10 * US
    return script, kernel.ended(at, PID).ended(at, 101).ended(at, 102)


def test_waiting_while_nobody_holds_the_gil_is_no_contention() -> None:
    script, kernel = ping_pong()
    verdict = judge(process(script, kernel))
    assert verdict.kind == "io-bound-handoff"
    assert verdict.evidence["contended_share"] > 0.5


def test_waiting_for_a_holder_without_a_core_is_no_contention() -> None:
    """Thread 1 is off its core for 20 of every 200 ms, with the GIL, and thread 2 waits for it meanwhile."""
    script, kernel, at = Script().hold(0, 10 * US, 0), Kernel(), MS
    for _ in range(20):
        script.acquire(at, 1).request(at + MS, 2).release(at + 21 * MS, 1)
        kernel.run(at, at + 500 * US, 101, 0, preempted=True).run(at + 20 * MS, at + 21 * MS, 101, 0)
        script.acquire(at + 21 * MS + US, 2).release(at + 22 * MS, 2)
        kernel.run(at + 21 * MS, at + 22 * MS, 102, 1)
        at += 200 * MS
    kernel.ended(at, PID).ended(at, 101).ended(at, 102)
    verdict = judge(process(script, kernel))
    assert verdict.kind == "io-bound-handoff"


def test_threads_that_exclude_each_other_take_turns() -> None:
    """As under one lock: each runs for 10 ms with the GIL while the other is blocked, and neither waits for it."""
    script, kernel, at = Script().hold(0, 10 * US, 0), Kernel().run(0, 10 * US, PID), 20 * US
    for turn in range(100):
        thread = 1 + turn % 2
        script.acquire(at, thread).release(at + 10 * MS, thread)
        kernel.run(at, at + 10 * MS, 100 + thread, turn % 2)
        at += 10 * MS + 50 * US
    kernel.ended(at, PID).ended(at, 101).ended(at, 102)
    verdict = judge(process(script, kernel))
    assert verdict.kind == "single-threaded"
    assert "One thread at a time: 3 threads took turns" in verdict.summary
    assert verdict.evidence["used_share"] > 0.9


def without_a_core() -> Process:
    """One thread has the GIL for a second, and no core for most of it."""
    script, kernel = Script(tids=(PID,)).acquire(0, 0).release(1000 * MS, 0), Kernel()
    kernel.run(0, 300 * MS, PID, preempted=True).run(900 * MS, 1000 * MS, PID).ended(1000 * MS, PID)
    return process(script, kernel)


def test_single_thread_that_lacked_a_core_is_told_so() -> None:
    verdict = judge(without_a_core())
    assert verdict.kind == "single-threaded"
    assert "lacked a core while it held the GIL for 60.0%" in verdict.summary


@pytest.mark.parametrize("late", [US, 5 * MS])
def test_passing_the_turn_is_a_hand_off_however_long_waking_up_takes(late: int) -> None:
    """A busy machine has no core for who is woken, or has one at once: the threads do not work longer for that."""
    assert judge(process(*ping_pong(400, late))).kind == "io-bound-handoff"


def test_a_thread_that_lacked_a_core_nearly_always_was_not_idle() -> None:
    script, kernel = Script(tids=(PID,)).acquire(0, 0).release(1000 * MS, 0), Kernel()
    kernel.run(0, 10 * MS, PID, preempted=True).run(990 * MS, 1000 * MS, PID).ended(1000 * MS, PID)
    assert judge(process(script, kernel)).kind == "single-threaded"


def test_a_hog_on_a_busy_machine_is_a_hog() -> None:
    """It has a core for 40 ms of each second, and goes on for 30 ms of these after it was asked."""
    script, kernel, at = Script().hold(0, 10 * US, 0), Kernel(), MS
    for _ in range(10):
        script.acquire(at, 1).request(at + MS, 2).timeout(at + 6 * MS, 2).release(at + 1000 * MS, 1)
        kernel.run(at, at + 20 * MS, 101, 0, preempted=True).run(at + 980 * MS, at + 1000 * MS, 101)
        script.acquire(at + 1000 * MS + US, 2).release(at + 1000 * MS + 9 * US, 2)
        at += 1001 * MS
    assert judge(process(script, kernel.ended(at, PID).ended(at, 101).ended(at, 102))).kind == "hog"


@pytest.mark.parametrize(("us", "kind"), [(1, "io-bound-handoff"), (10, "cpu-bound-contention")])
def test_waiting_for_the_rest_of_a_brief_turn_is_no_contention(us: int, kind: str) -> None:
    """Two threads wake each other up, and each is there before the other is done: 13 % of the time, however long."""
    script, kernel = Script(tids=(PID, 101, 102)), Kernel()
    for at in range(0, 1000 * 150 * us * US, 150 * us * US):
        first, second, end = at, at + 60 * us * US, at + 120 * us * US
        script.acquire(first, 1).request(second - 20 * us * US, 2).release(second, 1)
        script.acquire(second, 2).release(end, 2)
        kernel.run(first, second, 101, 0).run(second, end, 102, 1)
    assert judge(process(script, kernel)).kind == kind


def brief_steps(wake: int, lost: int) -> tuple[Script, Kernel]:
    """Two threads in turns of 50 us every 400 us: one lacks a core for `lost`, the other is `wake` late to take it."""
    script, kernel = Script(tids=(PID, 101, 102)), Kernel()
    for at in range(0, 400 * MS, 400 * US):
        end = at + 50 * US + lost
        script.acquire(at, 1).request(at + 40 * US, 2).release(end, 1)
        script.acquire(end + wake, 2).release(end + wake + 50 * US, 2)
        kernel.run(at, at + 45 * US, 101, 0, preempted=lost > 0).run(at + 45 * US + lost, end, 101, 0)
        kernel.run(end + wake, end + wake + 50 * US, 102, 1)
    return script, kernel


@pytest.mark.parametrize(
    ("wake", "lost", "said"),
    [(5 * US, 0, "is not the limit"), (80 * US, 0, "woken up"), (5 * US, 200 * US, "no core")],
)
def test_the_gil_is_not_called_no_limit_where_threads_waited_for_it(wake: int, lost: int, said: str) -> None:
    verdict = judge(process(*brief_steps(wake, lost)))
    assert verdict.kind == "io-bound-handoff"
    assert said in verdict.advice
    assert ("is not the limit" in verdict.advice) is (verdict.evidence["contended_share"] <= 0.1)


def test_more_processes_are_no_advice_without_cores() -> None:
    script, kernel = Script(tids=(PID, 101)).acquire(0, 1).release(100 * MS, 1), Kernel()
    for at in range(0, 100 * MS, 10 * MS):
        kernel.run(at, at + 6 * MS, 101, 0, preempted=True)
    verdict = judge(process(script, kernel))
    assert verdict.kind == "single-threaded"
    assert "lacked a core while it held the GIL for 4" in verdict.summary
    assert "more processes" not in verdict.advice
    assert "CPU affinity" in verdict.advice

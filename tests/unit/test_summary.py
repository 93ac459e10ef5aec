"""The figures of a summary, against a recording small enough to add up by hand."""

from __future__ import annotations

import pytest

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.measure import usage
from giltrace.analysis.summary import Summary, summarise
from giltrace.recording.collected import CollectorReport
from giltrace.timeline.model import State
from tests.unit.gil_events import PID, Kernel, Script, process, timeline


def recorded(kernel: Kernel | None = None) -> Summary:
    script = Script(tids=(PID, 101, 102)).acquire(10, 0, core=1).request(12, 1).timeout(20, 1).timeout(28, 1)
    script.release(30, 0, forced=True).acquire(32, 1).request(35, 0).release(40, 1).acquire(41, 0).release(50, 0)
    script.acquire(70, 2).release(72, 2)
    reports = (CollectorReport("gil", "ok", "12 ns per event"), CollectorReport("sched", "off"))
    return summarise(timeline(script, kernel, end=100, collectors=reports))


def scheduled() -> Kernel:
    kernel = Kernel().run(0, 55, PID, 1).run(80, 100, PID, 0).run(11, 13, 101, 0).run(31, 60, 101, 0, preempted=True)
    kernel.born(5, 101).born(60, 102).run(65, 90, 102, 2)
    return kernel.ended(100, PID).ended(100, 101).ended(90, 102)


def test_threads() -> None:
    (only,) = recorded(scheduled()).processes
    main, one, two = only.threads
    assert (main.holds, main.held_ns, main.held_share, main.forced_releases) == (2, 29, 0.29, 1)
    assert (main.waits, main.waited_ns, main.waited_share, main.longest_wait_ns) == (1, 6, 0.06, 6)
    assert (one.waits, one.waited_ns, one.p50_wait_ns, one.p99_wait_ns) == (1, 20, 20, 20)
    assert (two.waits, two.longest_wait_ns, two.p50_wait_ns) == (0, 0, 0)
    assert (main.cores, one.cores, two.cores) == ((0, 1), (0,), (2,))
    # Of main's 65 ns off the GIL: 0-10, 30-35 and 50-55 on core 1, 80-100 on core 0.
    assert (main.off_gil_ns, main.off_running_ns, main.off_runnable_ns, main.off_blocked_ns) == (65, 40, 0, 25)
    assert (one.off_running_ns, one.off_runnable_ns, one.off_blocked_ns) == (21, 46, 0)
    assert (two.off_running_ns, two.off_runnable_ns, two.off_blocked_ns) == (23, 5, 0)


def test_states_add_up_to_the_life_of_each_thread() -> None:
    for thread in recorded(scheduled()).processes[0].threads:
        assert set(thread.states_ns) == set(State)
        assert sum(thread.states_ns.values()) == thread.life_ns
        assert thread.states_ns[State.WAITING] == thread.waited_ns


def test_gil() -> None:
    (gil,) = recorded(scheduled()).processes[0].gils
    assert (gil.held_ns, gil.free_ns, gil.contended_ns) == (39, 61, 26)
    assert (gil.hand_offs, gil.switch_requests, gil.forced_releases) == (3, 2, 1)
    # 2, 1 and 20 ns; only the first two went to a thread that waited already.
    assert (gil.latency_median_ns, gil.wake_latency_median_ns) == (2, 1)


def test_without_scheduling_data_what_needs_it_is_unknown() -> None:
    (only,) = recorded().processes
    main = only.threads[0]
    assert (main.off_running_ns, main.off_runnable_ns, main.off_blocked_ns, main.states_ns) == (None, None, None, {})
    assert main.cores == (1,)
    assert only.wall_ns == 72
    assert main.off_gil_ns == 72 - 29 - 6


def test_quality() -> None:
    quality = recorded().quality
    assert (quality.lost, quality.sched_lost, quality.violations, quality.clock_error_ns) == (0, 0, (), 7)
    assert [(c.name, c.status, c.cost) for c in quality.collectors] == [
        ("gil", "ok", "12 ns per event"), ("sched", "off", ""),
    ]  # fmt: skip


def test_losses_and_violations_reach_the_summary() -> None:
    kernel = scheduled()
    kernel.lost = 5
    script = Script().acquire(10, 0).acquire(15, 1).release(20, 0).release(30, 1)
    broken = summarise(timeline([script.events(lost=0)], kernel, end=100))
    assert broken.quality.lost == broken.quality.sched_lost == 5
    assert len(broken.quality.violations) == 2
    assert broken.processes[0].violations == broken.quality.violations


def test_percentiles_are_nearest_rank() -> None:
    script, at = Script(tids=(PID, 101)), 0
    for length in range(1, 101):
        script.hold(at + 200, at + 210, 1, asked=at + 200 - length)
        at += 300
    (thread,) = [t for t in summarise(timeline(script)).processes[0].threads if t.waits]
    assert (thread.p50_wait_ns, thread.p99_wait_ns, thread.longest_wait_ns) == (50, 99, 100)


def test_contended_time_counts_two_waiters_once() -> None:
    script = Script().acquire(0, 0).request(10, 1).request(20, 2).release(50, 0).acquire(50, 1).release(60, 1)
    built = process(script.acquire(70, 2).release(80, 2))
    assert usage.contended_ns(built, 0) == 60


def test_an_overstay_leaves_out_time_without_a_core() -> None:
    script = Script(tids=(PID, 101)).acquire(0, 0).request(1, 1).timeout(100, 1).release(1000, 0).acquire(1001, 1)
    script.release(1002, 1)
    kernel = Kernel().run(0, 300, PID, preempted=True).run(700, 1010, PID).ended(1010, PID)
    built = process(script, kernel, end=1010)
    assert usage.overstays(built, 1).length.tolist() == [500]
    assert usage.overstays(built, 501).length.tolist() == []


def test_running_at_once() -> None:
    script = Script(tids=(PID, 101)).acquire(0, 0).release(10, 0).acquire(60, 1).release(61, 1)
    built = process(script, Kernel().run(0, 50, PID).run(20, 90, 101, 1).ended(90, PID).ended(90, 101))
    assert usage.running(built) == (90, 30)


@pytest.mark.parametrize(
    ("ns", "told"),
    [
        (None, "-"), (0, "0 ns"), (999, "999 ns"), (1000, "1.00 us"), (12_345, "12.3 us"), (999_499, "999 us"),
        (999_600, "1.00 ms"), (12_300_000, "12.3 ms"), (1_234_000_000, "1.23 s"), (9_996_000, "10.0 ms"),
        (3_600_000_000_000, "3,600 s"),
    ],
)  # fmt: skip
def test_durations(ns: int | None, told: str) -> None:
    assert duration(ns) == told


def test_percent() -> None:
    assert (percent(0.1234), percent(None)) == ("12.3%", "-")

"""Records to holds, waits and switch requests, complete and with gaps."""

from __future__ import annotations

import numpy as np
import pytest

from giltrace.recording.events import ProcessEvents, ThreadInfo
from giltrace.recording.layout import Kind, RequestFlag
from giltrace.timeline.model import Flag
from tests.unit.gil_events import PID, Kernel, Script, process, rows, timeline

FORCED, START, END = int(Flag.FORCED), int(Flag.PARTIAL_START), int(Flag.PARTIAL_END)


def holds(script: Script, kernel: Kernel | None = None, end: int = 0) -> list[tuple[int, ...]]:
    return rows(process(script, kernel, end=end).holds, "start", "end", "thread", "flags")


def waits(script: Script) -> list[tuple[int, ...]]:
    return rows(process(script).waits, "start", "end", "thread", "timeouts", "hold", "flags")


def test_a_hold_lasts_from_acquire_to_release_and_knows_its_core() -> None:
    script = Script().acquire(10, 0, core=3).release(25, 0).acquire(30, 0).release(31, 0)
    assert rows(process(script).holds, "start", "end", "core", "flags") == [(10, 25, 3, 0), (30, 31, -1, 0)]


def test_an_uncontended_acquire_has_no_wait() -> None:
    script = Script().acquire(10, 0).release(20, 0).request(20, 1).acquire(20, 1).release(22, 1)
    assert waits(script) == []


def test_a_contended_hand_off() -> None:
    script = Script().acquire(10, 0).request(12, 1).timeout(17, 1, asks=False).timeout(22, 1)
    script.release(23, 0, forced=True).acquire(24, 1).release(30, 1)
    assert holds(script) == [(10, 23, 0, FORCED), (24, 30, 1, 0)]
    assert waits(script) == [(12, 24, 1, 2, 1, 0)]
    assert rows(process(script).switch_requests, "time", "thread", "gil") == [(22, 1, 0)]
    assert process(script).violations == ()


def test_a_wait_points_to_its_hold_among_holds_sorted_by_start() -> None:
    script = Script().hold(10, 20, 1).hold(21, 30, 0, asked=15).hold(31, 40, 1, asked=22).hold(41, 50, 0, asked=32)
    built = process(script)
    assert rows(built.holds, "start") == [(10,), (21,), (31,), (41,)]
    assert rows(built.waits, "start", "hold") == [(15, 1), (22, 2), (32, 3)]
    assert (built.holds["start"][built.waits["hold"]] == built.waits["end"]).all()


def test_a_thread_uses_two_gils_one_after_the_other() -> None:
    script = Script(gils=2).acquire(10, 0, gil=0).acquire(11, 1, gil=1).release(20, 0, gil=0)
    script.request(21, 0, gil=1).release(30, 1, gil=1).acquire(31, 0, gil=1).release(35, 0, gil=1)
    built = process(script)
    assert rows(built.holds, "start", "end", "thread", "gil") == [(10, 20, 0, 0), (11, 30, 1, 1), (31, 35, 0, 1)]
    assert rows(built.waits, "start", "end", "gil", "hold") == [(21, 31, 1, 2)]
    assert built.gils == 2
    assert built.violations == ()


def test_an_interpreter_that_ends_takes_its_gil_with_it() -> None:
    script = Script(gils=2).acquire(10, 0).release(20, 0).acquire(21, 0, gil=1).acquire(40, 0).release(50, 0)
    script.acquire(60, 1, gil=1).release(61, 1, gil=1)
    built = process(script)
    assert rows(built.holds, "start", "end", "gil", "flags") == [
        (10, 20, 0, 0), (21, 40, 1, END), (40, 50, 0, 0), (60, 61, 1, 0),
    ]  # fmt: skip
    assert built.violations == ()


def test_the_last_hold_of_a_killed_process_ends_with_it() -> None:
    script = Script().acquire(10, 0)
    kernel = Kernel().run(0, 99, PID).ended(99, PID)
    assert holds(script, kernel, end=500) == [(10, 99, 0, END)]
    assert process(script, kernel, end=500).violations == ()


def test_a_wait_that_ends_with_the_process() -> None:
    script = Script().acquire(10, 0).request(20, 1).timeout(25, 1).end(90, 1)
    assert waits(script) == [(20, 90, 1, 1, -1, END)]
    assert process(script).violations == ()


def test_a_wait_that_was_under_way_when_the_recording_began() -> None:
    script = Script().add(Kind.REQUEST, 5, 1, flags=RequestFlag.UNDER_WAY).release(20, 0).acquire(21, 1).release(22, 1)
    assert waits(script) == [(5, 21, 1, 0, 1, Flag.PARTIAL_START)]
    assert process(script).violations == ()


def test_attaching_in_the_middle_of_a_hold_and_of_a_wait() -> None:
    script = Script(start=100).timeout(103, 1).release(110, 2).acquire(111, 1).release(120, 1)
    assert holds(script) == [(100, 110, 2, START), (111, 120, 1, 0)]
    assert waits(script) == [(100, 111, 1, 1, 1, START)]
    assert process(script).violations == ()


class TestLoss:
    def test_a_release_without_an_acquire_begins_where_the_last_hold_ended(self) -> None:
        script = Script().acquire(10, 0).release(20, 0).release(50, 1)
        assert holds(script) == [(10, 20, 0, 0), (20, 50, 1, START)]
        script = Script().acquire(5, 1).release(6, 1).acquire(10, 0).release(20, 0).release(50, 1)
        built = process(script)
        assert rows(built.holds, "start", "end", "flags")[-1] == (20, 50, START)
        (told,) = built.violations
        assert told.startswith("releases without an acquire: 1")
        assert "'thread-1', tid 101" in told

    def test_an_acquire_without_a_release_ends_at_the_next_acquire(self) -> None:
        script = Script().acquire(10, 0).acquire(30, 1).release(40, 1)
        assert holds(script) == [(10, 30, 0, END), (30, 40, 1, 0)]
        assert process(script).violations[0].startswith("holds without a release: 1")

    def test_what_the_loss_on_record_explains_is_not_called_broken(self) -> None:
        script = Script().acquire(10, 0).acquire(30, 1).release(40, 1).release(50, 0)
        for lost in (2, 3):
            (built,) = timeline([script.events(lost)]).processes
            assert built.violations == ()
            assert rows(built.holds, "start", "end", "flags") == [(10, 30, END), (30, 40, 0), (40, 50, START)]
        (built,) = timeline([script.events(1)]).processes
        assert [told.partition(":")[0] for told in built.violations] == [
            "holds without a release",
            "releases without an acquire",
        ]

    def test_both_missing_in_between(self) -> None:
        script = Script().acquire(10, 0).release(40, 1)
        assert holds(script) == [(10, 40, 0, END), (40, 40, 1, START)]

    def test_two_acquires_in_a_row(self) -> None:
        script = Script().acquire(10, 0).acquire(20, 0).release(30, 0)
        assert holds(script) == [(10, 20, 0, END), (20, 30, 0, 0)]
        assert len(process(script).violations) == 1

    def test_two_requests_in_a_row(self) -> None:
        script = Script().request(10, 1).request(20, 1).acquire(30, 1).release(31, 1)
        assert waits(script) == [(10, 20, 1, 0, -1, END), (20, 30, 1, 0, 0, 0)]
        assert process(script).violations[0].startswith("requests without an acquire: 1")

    def test_a_request_while_holding_ends_the_hold(self) -> None:
        script = Script().acquire(10, 0).request(20, 0).acquire(25, 0).release(30, 0)
        assert holds(script) == [(10, 20, 0, END), (25, 30, 0, 0)]
        assert waits(script) == [(20, 25, 0, 0, 1, 0)]

    def test_a_release_right_after_a_request(self) -> None:
        script = Script().acquire(5, 0).request(8, 1).release(20, 0).release(40, 1)
        assert holds(script) == [(5, 20, 0, 0), (20, 40, 1, START)]
        assert waits(script) == [(8, 20, 1, 0, 1, END)]
        assert len(process(script).violations) == 1

    def test_a_timed_out_wait_without_a_request(self) -> None:
        script = Script().acquire(5, 1).release(6, 1).timeout(10, 1).timeout(15, 1).acquire(17, 1).release(18, 1)
        assert waits(script) == [(10, 17, 1, 2, 1, START)]
        assert process(script).violations[0].startswith("timed-out waits without a request: 1")

    def test_unreadable_records_are_counted_and_left_out(self) -> None:
        script = Script(tids=(PID,)).acquire(10, 0).release(20, 0).acquire(12, 5).add(Kind.NONE, 13, 0)
        assert holds(script) == [(10, 20, 0, 0)]
        assert process(script).violations == ("unreadable records: 2",)

    def test_records_out_of_order_are_put_right_and_told(self) -> None:
        recorded = Script().acquire(10, 0).release(20, 0).events()
        shuffled = ProcessEvents(**{**vars(recorded), "events": recorded.events[::-1]})
        (built,) = timeline([shuffled]).processes
        assert rows(built.holds, "start", "end") == [(10, 20)]
        assert built.violations == ("records out of order of time: 1",)


def busy_script(seed: int, turns: int, threads: int, gils: int) -> Script:
    """Threads that pass each GIL around, waiting half of the time: nothing is missing."""
    rng = np.random.default_rng(seed)
    script = Script(tids=[PID + i for i in range(threads)], gils=gils)
    free_since = [10] * gils
    idle_since = [10] * threads
    for _ in range(turns):
        gil, thread = int(rng.integers(gils)), int(rng.integers(threads))
        start = max(free_since[gil], idle_since[thread]) + int(rng.integers(1, 9))
        asked = int(rng.integers(idle_since[thread], start))
        if rng.random() < 0.5:
            script.request(asked, thread, gil)
            if start - asked > 3:
                script.timeout(asked + 2, thread, gil)
        end = start + int(rng.integers(1, 20))
        script.acquire(start, thread, gil).release(end, thread, gil, forced=bool(rng.random() < 0.5))
        free_since[gil] = end
        idle_since[thread] = end + 1
    return script


def naive_holds(recorded: ProcessEvents) -> list[tuple[int, ...]]:
    began: dict[tuple[int, int], int] = {}
    found = []
    for time, _, thread, gil, kind, flags, _ in recorded.events.tolist():
        if kind == Kind.ACQUIRE:
            began[thread, gil] = time
        elif kind == Kind.RELEASE:
            found.append((began.pop((thread, gil)), time, thread, gil, flags & 1))
    return sorted(found)


def naive_waits(recorded: ProcessEvents) -> list[tuple[int, ...]]:
    asked: dict[tuple[int, int], tuple[int, int]] = {}
    found = []
    for time, _, thread, gil, kind, _flags, _ in recorded.events.tolist():
        key = thread, gil
        if kind == Kind.REQUEST:
            asked[key] = time, 0
        elif kind == Kind.TIMEOUT:
            asked[key] = asked[key][0], asked[key][1] + 1
        elif kind == Kind.ACQUIRE and key in asked:
            start, timeouts = asked.pop(key)
            found.append((start, time, thread, gil, timeouts))
    return sorted(found)


@pytest.mark.parametrize("gils", [1, 3])
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_a_loop_over_the_records(seed: int, gils: int) -> None:
    recorded = busy_script(seed, turns=400, threads=7, gils=gils).events()
    (built,) = timeline([recorded]).processes
    assert sorted(rows(built.holds, "start", "end", "thread", "gil", "flags")) == naive_holds(recorded)
    assert sorted(rows(built.waits, "start", "end", "thread", "gil", "timeouts")) == naive_waits(recorded)
    assert built.violations == ()


@pytest.mark.parametrize("gils", [1, 3])
@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_lost_no_two_holders_overlap_and_states_tile(seed: int, gils: int) -> None:
    whole = busy_script(seed, turns=200, threads=5, gils=gils).events()
    kept = np.random.default_rng(seed).random(len(whole.events)) < 0.8
    torn = ProcessEvents(**{**vars(whole), "events": whole.events[kept], "lost": int((~kept).sum())})
    kernel = Kernel()
    for i in range(5):
        kernel.run(7 * i, 7 * i + 900, PID + i, i)
    (built,) = timeline([torn], kernel, end=int(whole.events["time"][-1]) + 10).processes
    assert built.violations == ()
    assert built.lost == torn.lost
    partial = built.holds["flags"] & np.uint8(START | END)
    assert partial.any()


def test_a_thread_without_records_is_kept() -> None:
    recorded = Script(tids=(PID, 101)).acquire(10, 0).release(20, 0).events()
    recorded = ProcessEvents(**{**vars(recorded), "threads": (*recorded.threads, ThreadInfo(102, "torn", 3))})
    (built,) = timeline([recorded]).processes
    assert [(t.tid, t.lost) for t in built.threads] == [(PID, 0), (101, 0), (102, 3)]


def test_a_process_without_events() -> None:
    (built,) = timeline([Script(tids=(), note="free-threaded build: no use of a GIL was seen").events()]).processes
    assert (len(built.holds), len(built.waits), len(built.states), built.threads) == (0, 0, 0, ())
    assert built.note.startswith("free-threaded")

"""Why a thread took so long, by hand-written records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from giltrace.analysis.findings.stall import CAUSES, Look, Stretch, Why
from giltrace.timeline.model import Process
from tests.unit.analysis_stacks import Frame, with_stacks
from tests.unit.gil_events import MS, PID, Kernel, Script, process

LIB = "/usr/lib/python3.12"
LOOP: list[Frame] = [
    ("Handle._run", f"{LIB}/asyncio/events.py", 84),
    ("BaseEventLoop._run_once", f"{LIB}/asyncio/base_events.py", 1971),
]
SELECTOR: list[Frame] = [("EpollSelector.select", f"{LIB}/selectors.py", 468), LOOP[1]]
HANDLER: list[Frame] = [
    ("read", f"{LIB}/socket.py", 7),
    ("handler", "/srv/app.py", 12),
    ("serve", "/srv/app.py", 30),
    *LOOP,
]
SPIN: list[Frame] = [("spin", "/srv/work.py", 5)]
IMPORTING: list[Frame] = [
    ("<module>", "/srv/slow.py", 2),
    ("_find_and_load", "<frozen importlib._bootstrap>", 1360),
    ("handler", "/srv/app.py", 14),
    *LOOP,
]


def why(told: Process, start: int, end: int, looks: Sequence[Look] = ()) -> Why:
    found = Stretch(told, 0, start, end, looks).why()
    assert found.cause in CAUSES
    return found


def look(
    time: int,
    frames: Sequence[Frame],
    *,
    tid: int = PID,
    collecting: bool = False,
    holds: bool = True,
    task: str = "",
) -> Look:
    return Look(time, tid, tuple(frames), collecting, holds, task)


def alone(end: int = 300 * MS) -> Process:
    """Thread 0 has the GIL from the selector to the selector."""
    script = Script(tids=(PID,)).hold(0, MS, 0).hold(10 * MS, end, 0).hold(end + 10 * MS, end + 11 * MS, 0)
    return with_stacks(process(script), [SELECTOR], hold={0: 0})


def test_one_hold_of_another_thread() -> None:
    script = Script(tids=(PID, 101)).hold(0, MS, 0).acquire(2 * MS, 1).request(10 * MS, 0)
    script.release(300 * MS, 1).acquire(300 * MS, 0).release(305 * MS, 0)
    told = with_stacks(process(script), [SPIN, HANDLER], hold={1: 0, 0: 1}, wait={0: 1})
    found = why(told, 10 * MS, 305 * MS)
    assert found.cause == "gil-wait"
    assert found.lines == ("spin (work.py:5)", "handler (app.py:12)")
    assert found.told == (
        "it waited 290 ms for the GIL, which thread 'thread-1' held for 298 ms without a break at spin (work.py:5)"
    )


def test_many_turns_of_another_thread() -> None:
    script = Script(tids=(PID, 101)).hold(0, MS, 0)
    for at in range(10 * MS, 210 * MS, 20 * MS):
        script.acquire(at, 1).request(at + MS, 0).release(at + 15 * MS, 1, forced=True)
        script.acquire(at + 15 * MS, 0).release(at + 16 * MS, 0)
    told = with_stacks(process(script), [SPIN, HANDLER], hold={1: 0, 0: 1}, wait={0: 1})
    found = why(told, 11 * MS, 206 * MS)
    assert found.cause == "small-holds"
    assert found.told.startswith("it waited 140 ms for the GIL in 10 waits, mostly for thread 'thread-1' at spin ")
    assert found.told.endswith("which took it 10 times")


def test_a_call_that_blocks() -> None:
    script = Script(tids=(PID,)).hold(0, MS, 0).hold(10 * MS, 12 * MS, 0).hold(300 * MS, 302 * MS, 0)
    told = with_stacks(process(script), [HANDLER], hold={0: 0})
    found = why(told, 10 * MS, 302 * MS)
    assert found.cause == "blocking-call"
    assert found.told == "it was blocked in a call for 288 ms, at handler (app.py:12)"
    assert Stretch(told, 0, 10 * MS, 302 * MS).coroutine() == "serve (app.py:30)"


def test_a_loop_that_waits() -> None:
    script = Script(tids=(PID,)).hold(0, MS, 0).hold(300 * MS, 302 * MS, 0)
    found = why(with_stacks(process(script), [SELECTOR], hold={0: 0}), 0, 302 * MS)
    assert (found.cause, found.lines) == ("awaiting", ())


def test_what_a_thread_that_nobody_waits_for_does_is_told_by_looks() -> None:
    computing = [look(at, HANDLER, task="mine") for at in (100 * MS, 200 * MS)]
    found = why(alone(), 10 * MS, 300 * MS, computing)
    assert found == Why(
        "computing", "its own code computed for 290 ms at handler (app.py:12)", ("handler (app.py:12)",), "mine"
    )
    # What was seen before or after does not count.
    late = [look(400 * MS, SPIN), look(5 * MS, SPIN)]
    assert why(alone(), 10 * MS, 300 * MS, [*computing, *late]).lines == ("handler (app.py:12)",)
    assert why(alone(), 10 * MS, 300 * MS) == Why(
        "computing", "its own code computed for 290 ms, at a line that is not known", seen=False
    )


def test_collections_and_imports_are_told_by_looks() -> None:
    found = why(alone(), 10 * MS, 300 * MS, [look(at * MS, HANDLER, collecting=at > 100) for at in (50, 150, 250)])
    assert found.cause == "collection"
    assert found.told == "it collected garbage for 290 ms at handler (app.py:12)"
    found = why(alone(), 10 * MS, 300 * MS, [look(150 * MS, IMPORTING)])
    assert (found.cause, found.lines) == ("import", ("handler (app.py:14)",))


@pytest.mark.parametrize(("line", "cause"), [("gc.collect()", "collection"), ("mygc.collect()", "computing")])
def test_a_collection_that_was_called_for_is_told_by_the_source(line: str, cause: str, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(line)
    told = process(Script(tids=(PID,)).hold(0, 300 * MS, 0).hold(310 * MS, 311 * MS, 0))
    told = with_stacks(told, [[("clean", str(app), 1)]], hold={0: 0})
    assert Stretch(told, 0, 0, 300 * MS, before=app.stat().st_mtime_ns + 1).why().cause == cause


@pytest.mark.parametrize(("frames", "collecting", "cause"), [(SPIN, True, "collection"), (IMPORTING, False, "import")])
def test_what_the_holder_did_is_told_by_looks(frames: list[Frame], collecting: bool, cause: str) -> None:
    script = Script(tids=(PID, 101)).hold(0, MS, 0).acquire(2 * MS, 1).request(10 * MS, 0)
    script.release(300 * MS, 1).acquire(300 * MS, 0).release(305 * MS, 0)
    told = with_stacks(process(script), [HANDLER], hold={0: 0}, wait={0: 0})
    found = why(told, 10 * MS, 305 * MS, [look(150 * MS, frames, tid=101, collecting=collecting)])
    assert found.cause == cause
    assert "while thread 'thread-1'" in found.told


def test_nothing_on_record() -> None:
    script = Script(tids=(PID, 101)).hold(0, MS, 0).hold(2 * MS, 3 * MS, 1)
    told = process(script)
    assert why(told, 0, MS).cause == "computing"
    assert Stretch(told, 0, 5 * MS, 6 * MS).why().cause == "unknown"
    assert Stretch(told, 0, 5 * MS, 6 * MS).stood() == ""


def kept(kernel: Kernel) -> Process:
    """Thread 0 has the GIL from the selector to the selector, of which the kernel knows more."""
    script = Script(tids=(PID,)).hold(0, MS, 0).hold(10 * MS, 300 * MS, 0).hold(310 * MS, 311 * MS, 0)
    return with_stacks(process(script, kernel), [SELECTOR], hold={0: 0})


def test_a_thread_with_the_gil_and_no_core_did_not_compute() -> None:
    told = kept(Kernel().run(0, 50 * MS, PID, preempted=True).run(280 * MS, 311 * MS, PID))
    found = why(told, 10 * MS, 300 * MS, [look(100 * MS, HANDLER)])
    assert found == Why("no-core", "it had no core for 230 ms, at handler (app.py:12)", ("handler (app.py:12)",))
    assert why(told, 10 * MS, 300 * MS, [look(100 * MS, IMPORTING)]).lines == ("handler (app.py:14)",)
    # Of a little of that time it is not the cause.
    told = kept(Kernel().run(0, 200 * MS, PID, preempted=True).run(280 * MS, 311 * MS, PID))
    found = why(told, 10 * MS, 300 * MS, [look(100 * MS, HANDLER)])
    assert (found.cause, found.told) == ("computing", "its own code computed for 210 ms at handler (app.py:12)")


def test_a_thread_that_sleeps_with_the_gil_did_not_compute() -> None:
    found = why(
        kept(Kernel().run(0, 20 * MS, PID).run(290 * MS, 311 * MS, PID)), 10 * MS, 300 * MS, [look(100 * MS, HANDLER)]
    )
    told = "it was blocked for 270 ms in a call that kept the GIL, at handler (app.py:12)"
    assert found == Why("blocking-call", told, ("handler (app.py:12)",))


def test_a_holder_without_a_core_is_not_to_blame() -> None:
    script = Script(tids=(PID, 101)).hold(0, MS, 0).acquire(2 * MS, 1).request(10 * MS, 0)
    script.release(300 * MS, 1).acquire(300 * MS, 0).release(305 * MS, 0)
    kernel = Kernel().run(0, 10 * MS, PID).run(300 * MS, 305 * MS, PID)
    kernel.run(0, 30 * MS, 101, 1, preempted=True).run(290 * MS, 300 * MS, 101, 1)
    told = with_stacks(process(script, kernel), [SPIN, HANDLER], hold={1: 0, 0: 1}, wait={0: 1})
    found = why(told, 10 * MS, 305 * MS)
    assert found.cause == "no-core"
    assert found.told == (
        "it waited 290 ms for the GIL, which thread 'thread-1' had at spin (work.py:5), for 260 ms without a core"
    )


def test_who_runs_without_a_gil_computes() -> None:
    script = Script(tids=(PID, 101), python="3.14.0 free-threading build (main)")
    script.slept(310 * MS, 0, 0x7000).awoke(320 * MS, 0)
    kernel = Kernel().run(0, 310 * MS, PID).run(320 * MS, 330 * MS, PID)
    told = "its own code computed for 299 ms, at a line that is not known"
    assert why(process(script, kernel), 11 * MS, 320 * MS) == Why("computing", told, seen=False)
    assert why(process(script, kernel), 11 * MS, 310 * MS) == Why("computing", told, seen=False)


def test_who_has_no_core_off_the_gil_stands_where_that_was_given_up() -> None:
    script = Script(tids=(PID,)).hold(0, 60 * MS, 0).hold(300 * MS, 301 * MS, 0)
    kernel = Kernel().run(0, 75 * MS, PID, preempted=True).run(300 * MS, 301 * MS, PID)
    told = with_stacks(process(script, kernel), [HANDLER], hold={0: 0})
    expected = Why("no-core", "it had no core for 225 ms, at handler (app.py:12)", ("handler (app.py:12)",))
    assert why(told, 0, 300 * MS, [look(30 * MS, SPIN)]) == expected
    assert why(told, 0, 300 * MS, [look(30 * MS, SPIN), look(200 * MS, HANDLER, holds=False)]) == expected
    told = with_stacks(process(script, kernel), [SELECTOR], hold={0: 0})
    assert why(told, 0, 300 * MS, [look(30 * MS, SPIN), look(200 * MS, HANDLER, holds=False)]) == expected
    assert why(told, 0, 300 * MS, [look(30 * MS, SPIN)]).lines == ()


def test_looks_tell_of_their_own_moment() -> None:
    """The thread computes at one line for 40 ms, sleeps with the GIL for 100, and in another hold computes for 155."""
    script = Script(tids=(PID,)).hold(0, 140 * MS, 0).hold(145 * MS, 300 * MS, 0)
    told = with_stacks(
        process(script, Kernel().run(0, 40 * MS, PID).run(140 * MS, 300 * MS, PID)), [HANDLER], hold={0: 0}
    )
    assert why(told, 0, 150 * MS, [look(30 * MS, SPIN)]).told == (
        "it was blocked for 100 ms in a call that kept the GIL, at handler (app.py:12)"
    )
    found = why(told, 0, 150 * MS, [look(30 * MS, SPIN), look(100 * MS, HANDLER)])
    assert found.lines == ("handler (app.py:12)",)
    found = why(told, 0, 300 * MS, [look(100 * MS, SPIN)])
    assert found.told == "its own code computed for 195 ms, up to handler (app.py:12), where it gave the GIL up"
    assert why(told, 0, 300 * MS, [look(100 * MS, HANDLER), look(200 * MS, SPIN)]).lines == ("spin (work.py:5)",)


def test_the_holder_is_told_by_looks_while_it_was_waited_for() -> None:
    script = Script(tids=(PID, 101)).hold(0, MS, 0).acquire(2 * MS, 1).request(100 * MS, 0)
    script.release(300 * MS, 1).acquire(300 * MS, 0).release(305 * MS, 0)
    told = with_stacks(process(script), [HANDLER], hold={0: 0}, wait={0: 0})
    looks = [look(50 * MS, HANDLER, tid=101), look(200 * MS, SPIN, tid=101)]
    assert why(told, 10 * MS, 305 * MS, looks).lines == ("spin (work.py:5)", "handler (app.py:12)")


@pytest.mark.parametrize("on_record", [True, False], ids=["on record", "seen from outside"])
def test_an_import_is_the_same_cause_however_it_is_known(on_record: bool) -> None:
    def told(kernel: Kernel) -> Why:
        made = kept(kernel)
        if on_record:
            return why(with_stacks(made, [IMPORTING], hold={0: 0}), 10 * MS, 300 * MS)
        return why(made, 10 * MS, 300 * MS, [look(at * MS, IMPORTING) for at in (20, 100, 250)])

    place = ("handler (app.py:14)",)
    found = told(Kernel().run(0, 50 * MS, PID, preempted=True).run(280 * MS, 311 * MS, PID))
    assert found == Why("no-core", "it had no core for 230 ms, at handler (app.py:14)", place)
    found = told(Kernel().run(0, 50 * MS, PID).run(280 * MS, 311 * MS, PID))
    assert found == Why("import", "it imported for 290 ms, at handler (app.py:14)", place)
    found = told(Kernel().run(0, 311 * MS, PID))
    assert found == Why("import", "it imported for 290 ms, at handler (app.py:14)", place)


def test_the_import_that_is_on_record_is_not_told_by_a_look_at_another() -> None:
    script = Script(tids=(PID,)).hold(0, 200 * MS, 0).hold(210 * MS, 240 * MS, 0)
    other: list[Frame] = [*IMPORTING[:2], ("start", "/srv/app.py", 99), *LOOP]
    found = why(with_stacks(process(script), [IMPORTING], hold={0: 0}), 0, 240 * MS, [look(220 * MS, other)])
    assert found.lines == ("handler (app.py:14)",)


def test_who_lacks_a_core_off_the_gil_in_an_import_lacks_a_core() -> None:
    script = Script(tids=(PID,)).hold(0, 10 * MS, 0).hold(300 * MS, 301 * MS, 0)
    kernel = Kernel().run(0, 20 * MS, PID, preempted=True).run(300 * MS, 301 * MS, PID)
    found = why(with_stacks(process(script, kernel), [IMPORTING], hold={0: 0}), 0, 300 * MS)
    assert found == Why("no-core", "it had no core for 280 ms, at handler (app.py:14)", ("handler (app.py:14)",))


def test_a_wait_counts_as_far_as_it_lies_in_the_stretch() -> None:
    """Of 400 ms the last 150, in which the holder had no core for 140."""
    script = Script(tids=(PID, 101)).hold(0, MS, 0).acquire(2 * MS, 1).request(10 * MS, 0)
    script.release(410 * MS, 1).acquire(410 * MS, 0).release(415 * MS, 0)
    kernel = Kernel().run(0, 10 * MS, PID).run(410 * MS, 415 * MS, PID)
    kernel.run(0, 265 * MS, 101, 1, preempted=True).run(405 * MS, 410 * MS, 101, 1)
    told = with_stacks(process(script, kernel), [SPIN, HANDLER], hold={1: 0, 0: 1}, wait={0: 1})
    assert why(told, 260 * MS, 415 * MS).told == (
        "it waited 150 ms for the GIL, which thread 'thread-1' had at spin (work.py:5), for 140 ms without a core"
    )


def test_many_waits_are_many_whatever_was_waited_before() -> None:
    script = Script(tids=(PID, 101)).hold(0, MS, 0).acquire(2 * MS, 1).request(10 * MS, 0)
    script.release(400 * MS, 1).acquire(400 * MS, 0).release(401 * MS, 0)
    for at in range(402 * MS, 502 * MS, 20 * MS):
        script.acquire(at, 1).request(at + MS, 0).release(at + 15 * MS, 1).acquire(at + 15 * MS, 0)
        script.release(at + 16 * MS, 0)
    told = with_stacks(process(script), [SPIN, HANDLER], hold={1: 0, 0: 1}, wait={0: 1})
    found = why(told, 390 * MS, 500 * MS)
    assert found.cause == "small-holds"
    assert found.told.startswith("it waited 80.0 ms for the GIL in 6 waits, mostly for thread 'thread-1' at spin ")


def test_a_line_was_seen_if_the_hold_was_that_is_longest_there() -> None:
    script = Script(tids=(PID, 101)).acquire(0, 0).request(50 * MS, 1).timeout(55 * MS, 1).release(200 * MS, 0)
    script.acquire(200 * MS, 1).release(201 * MS, 1).hold(205 * MS, 300 * MS, 0)
    told = with_stacks(process(script), [HANDLER], hold={0: 0}, request={0: 0})
    assert why(told, 0, 300 * MS).told.endswith(" at handler (app.py:12)")
    assert (why(told, 0, 300 * MS).seen, why(told, 190 * MS, 300 * MS).seen) == (True, False)
    assert why(told, 190 * MS, 300 * MS).told.endswith(", up to handler (app.py:12), where it gave the GIL up")

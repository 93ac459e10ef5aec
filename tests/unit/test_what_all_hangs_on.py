"""Where one line, one call or one switch decides: the slowest stage of a pipeline, a hog's call, a GIL that came on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.unused import gil_is_on
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.measure.roles import python_threads
from giltrace.analysis.replay.native_locks import Wakes
from giltrace.analysis.replay.program import read_program
from giltrace.analysis.replay.what_if import replay
from giltrace.analysis.report import analyse
from giltrace.analysis.summary import summarise
from giltrace.timeline.model import Process
from tests.unit.block_events import Scene
from tests.unit.gil_events import MS, PID, US, timeline
from tests.unit.lock_scenes import STACKS

ITEMS, ITEM = 20, 10 * MS


def pipeline(*, spare: bool = True) -> Process:
    """Thread 1 stores each item for 10 ms, asleep; 2 parses for 2 ms, blocked until there is room; 3 waits for the GIL
    meanwhile, and then for the item, or sleeps for a time of its own.

    The main thread waits for the end of thread 1.
    """
    made = Scene(4, STACKS).hold(0, 10 * US, 0, "start")
    end = ITEMS * ITEM
    for item in range(ITEMS):
        begin = item * ITEM + 20 * US
        made.hold(begin, begin + 80 * US, 1, "store")
        made.hold(begin + 100 * US, begin + 2 * MS, 2, "parse")
        made.block(begin + 2 * MS + 10 * US, begin + ITEM - 50 * US, 2, at="get", by=1, wake="store")
        made.script.request(begin + 110 * US, 3).acquire(begin + 2 * MS + 20 * US, 3)
        made.script.release(begin + 2 * MS + 60 * US, 3)
        made.run(begin + 2 * MS + 10 * US, begin + 2 * MS + 60 * US, 3)
        if spare:
            made.block(begin + 2 * MS + 70 * US, begin + ITEM - 40 * US, 3, at="get", lock=2, by=1, wake="store")
    made.hold(end + 20 * US, end + 40 * US, 1, "store")
    made.block(20 * US, end + 60 * US, 0, at="join", lock=1, by=1, owned=False)
    made.ends = {1: end + 50 * US, 2: end, 3: end}
    return made.hold(end + 60 * US, end + 90 * US, 0, "end").process(end + 100 * US)


def test_the_slowest_stage_is_what_all_hangs_on() -> None:
    found = judge(pipeline())
    assert found.kind == "io-bound-handoff"
    assert "worker-* was asleep or in I/O at store (app.py:1) for 9" in found.summary
    assert "Somebody waited for the GIL 1" in found.summary
    assert found.evidence["path_share"] > 0.9


def test_it_is_not_where_a_loop_was_late_each_time_that_the_end_did_not_hang_on() -> None:
    """To say that the waits held nothing up would be false."""
    found = judge(pipeline(spare=False))
    assert "hangs on" not in found.summary
    assert "held nothing up" not in found.summary


def test_without_wakes_on_record_the_gil_that_was_waited_for_is_told() -> None:
    made = pipeline()
    assert made.stacks is not None
    none = np.empty(0, np.int32)
    bare = replace(made, blocks=made.blocks[:0], stacks=replace(made.stacks, block=none, wake=none))
    assert judge(bare).kind != judge(made).kind or "hangs on" not in judge(bare).summary


def native_thread(*, late: bool) -> Process:
    """Main has the GIL for 100 ms. A library's thread, 1, sleeps for 300 ms and then runs for a moment, or not."""
    made = Scene(2).hold(0, 100 * MS, 0, "work")
    made.run(MS, 2 * MS, 1).run(300 * MS if late else 3 * MS, (300 if late else 3) * MS + US, 1)
    made.hold(310 * MS, 311 * MS, 0, "end")
    return made.process(320 * MS)


def test_nothing_waits_for_a_librarys_own_thread() -> None:
    made = native_thread(late=True)
    assert python_threads(made).tolist() == [True, False]
    program = read_program(made, 2, Wakes.none())
    assert program.background == {1}
    assert replay(program, 2) == replay(read_program(native_thread(late=False), 2, Wakes.none()), 2)


def test_a_librarys_own_thread_is_nowhere_without_the_gil() -> None:
    (told,) = summarise(replace(timeline(Scene(1).script), processes=(native_thread(late=True),))).processes
    assert {row.site.thread for row in told.whereabouts} == {"MainThread"}


def test_a_hogs_call_bounds_what_its_release_would_bring() -> None:
    """Thread 1 keeps the GIL for half a second, while thread 2 wants to compute as long."""
    made = Scene(3).hold(0, 10 * US, 0, "start")
    made.script.request(2 * MS, 2)
    for late in range(7, 500, 5):
        made.script.timeout(late * MS, 2)
    made.hold(MS, 501 * MS, 1, "sort").hold(501 * MS + 20 * US, 1001 * MS, 2, "compute")
    (process,) = analyse(replace(timeline(Scene(1).script), processes=(made.process(1002 * MS),))).processes
    (hog,) = process.hogs
    assert hog.site.where == "sort (app.py:1)"
    assert hog.site_held_ns == 500 * MS
    assert hog.speedup_bound == pytest.approx(2, rel=0.05)
    assert hog.speedup_bound <= process.what_if.speedup_bound


def switched(since: int) -> Costed:
    """A free-threaded build that runs without its GIL from 20 ms on, and with it from `since` on."""
    made = Scene(2, STACKS).hold(0, 20 * MS, 0, "").run(20 * MS, since, 0)
    for turn in range(10):
        made.hold(since + turn * 20 * MS, since + (turn + 1) * 20 * MS - US, 0, "load")
    return Costed(made.process(since + 200 * MS, free_threaded=True))


def test_a_module_that_switched_the_gil_on_is_told() -> None:
    assert "had it from 60.0 ms on, at load (app.py:1): a module was imported there" in gil_is_on(switched(60 * MS))


def test_a_gil_that_was_on_from_the_start_was_asked_for() -> None:
    assert "was started with it: by PYTHON_GIL=1, or -X gil=1" in gil_is_on(switched(20 * MS))


def test_of_other_builds_and_of_one_without_its_gil_nothing_is_told() -> None:
    figures = switched(60 * MS)
    assert gil_is_on(Costed(replace(figures.process, free_threaded=False))) == ""
    alone = Scene(2).hold(0, US, 0, "").run(US, 100 * MS, 0).process(100 * MS, free_threaded=True)
    assert gil_is_on(Costed(alone)) == ""
    assert judge(replace(alone, python="3.13.5 free-threading build")).kind in ("free-threaded", "idle")
    assert PID in {thread.tid for thread in alone.threads}

"""What is told of where the threads of an idle process stand, and when that may be a deadlock."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.findings.stood import stood
from giltrace.recording.events import SPAN, Spans
from giltrace.timeline.model import Process
from tests.unit.analysis_stacks import Frame
from tests.unit.block_events import Scene, library, own
from tests.unit.gil_events import MS, PID
from tests.unit.lock_scenes import STACKS
from tests.unit.test_sampled import SAMPLING

DEADLOCK = "they may wait for each other, a deadlock."
END = 2_000 * MS
MESSAGE: Sequence[Frame] = [library("recv", "/usr/lib/python3.12/multiprocessing/connection.py"), own("results")]


def asleep(stacks: Mapping[str, Sequence[Frame]], *names: str) -> Scene:
    """The main thread and others each give the GIL up at their line as they begin, and sleep to the end."""
    made = Scene(len(names), {**STACKS, **stacks})
    for thread, name in enumerate(names):
        made.hold((1 + thread) * MS, (1 + thread) * MS + MS // 2, thread, name)
    return made


def sampled(made: Process, *stacks: Sequence[Frame], collector: str = "py-spy") -> Process:
    """A sampler saw the threads on these stacks all the time."""
    names = tuple(f"{function} ({file}:{line})" for stack in stacks for function, file, line in stack)
    spans, at = [], 0
    for thread, stack in zip(made.threads, stacks, strict=True):
        depths = range(len(stack) - 1, -1, -1)
        spans += [(0, END, thread.tid, at + number, depth) for number, depth in enumerate(depths)]
        at += len(stack)
    table = np.zeros(len(spans), SPAN)
    for number, field in enumerate(("start", "end", "tid", "name", "depth")):
        table[field] = [row[number] for row in spans]
    return replace(made, spans=(Spans(collector, PID, True, names, table),))


def test_threads_that_sleep_by_themselves_are_no_deadlock(tmp_path: Path) -> None:
    source = tmp_path / "app.py"
    source.write_text("time.sleep(gap)\n")
    made = asleep({"sleep": [("poll", str(source), 1)]}, "sleep", "sleep").process(END)
    told = stood(Figures(made, time.time_ns()))
    assert told == (
        "They stood, 'MainThread' in a sleep at poll (app.py:1), 'worker-1' in a sleep at poll (app.py:1): "
        "if they should be at work, look at what they wait for there."
    )
    # Without the source they are in none of the interpreter's locks all the same.
    assert "look at what they wait for there" in stood(Figures(made))


def test_a_pool_of_processes_waits_for_its_children() -> None:
    scene = asleep({"message": MESSAGE}, "get", "message")
    made = scene.block(10 * MS, END, 0, at="get", owned=False).process(END)
    told = stood(Figures(made))
    assert "'MainThread' for a queue at consume (app.py:1), 'worker-1' for another process at results" in told
    assert told.endswith("look at the processes that they wait for.")


def test_threads_that_all_stand_in_locks_may_be_a_deadlock() -> None:
    scene = asleep({}, "join", "get").block(10 * MS, END, 0, at="join", owned=False)
    made = scene.block(10 * MS, END, 1, at="get", lock=1, owned=False).process(END)
    told = stood(Figures(made))
    assert "'MainThread' for a thread's end at main (app.py:1), 'worker-1' for a queue at consume" in told
    assert told.endswith(DEADLOCK)


def test_a_main_thread_that_nobody_knows_of_may_be_what_others_wait_for() -> None:
    scene = asleep({}, "join", "get").block(10 * MS, END, 0, at="join", owned=False)
    made = scene.block(10 * MS, END, 1, at="get", lock=1, owned=False).process(END)
    main, *others = made.threads
    assert DEADLOCK not in stood(Figures(replace(made, threads=(*made.threads, main._replace(tid=made.pid)))))
    assert DEADLOCK in stood(Figures(replace(made, threads=(main, *others))))


def test_who_waits_with_a_limit_goes_on_by_itself() -> None:
    scene = asleep({}, "join", "get").block(10 * MS, END, 0, at="join", owned=False)
    made = scene.block(10 * MS, END, 1, at="get", lock=1, owned=False, timed=True).process(END)
    assert DEADLOCK not in stood(Figures(made))


@pytest.mark.parametrize(("lock", "found"), [(1, True), (0, False)])
def test_beside_one_that_sleeps_two_in_different_locks_may_wait_for_each_other(lock: int, found: bool) -> None:
    """In the same one both wait for a third, which may be the one that sleeps."""
    scene = asleep({}, "main", "first", "second").block(10 * MS, END, 1, at="first")
    made = scene.block(10 * MS, END, 2, at="second", lock=lock).process(END)
    assert stood(Figures(made)).endswith(DEADLOCK) is found


def test_where_only_a_sampler_looked_its_frames_tell() -> None:
    made = Scene(2).run(0, MS, 0).run(0, MS, 1).process(END)
    told = stood(Figures(sampled(made, MESSAGE, MESSAGE)))
    assert "'MainThread' for another process at results (app.py:1)" in told
    assert DEADLOCK not in told


def test_from_outside_a_thread_may_stand_in_a_lock_that_is_not_on_record() -> None:
    made = Scene(2).run(0, MS, 0).run(0, MS, 1).process(END)
    outside = replace(made, sampling=SAMPLING)
    assert stood(Figures(sampled(outside, STACKS["join"], [own("work")]))).endswith(DEADLOCK)
    assert DEADLOCK not in stood(Figures(sampled(outside, STACKS["join"], MESSAGE)))
    assert DEADLOCK not in stood(Figures(sampled(made, [own("main")], [own("work")])))

"""What was so when the tracer came to a process, and that no record tells since it has not changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.findings.verdict import judge
from giltrace.recording.events import ProcessEvents
from giltrace.timeline.holders import with_holders
from tests.unit.gil_events import MS, PID, Kernel, Script, not_python, timeline

#: That of GIL 0 in a `Script`.
MUTEX = 1
NAMES = {str(PID): "MainThread", "101": "other"}


def told(events: ProcessEvents, *holders: list[int]) -> ProcessEvents:
    (process,) = with_holders([replace(events, note="no use of a GIL was seen")], holders, NAMES)
    return process


def nothing(gils: int = 0) -> ProcessEvents:
    script = Script((), gils=gils).acquire(0, 0)
    events = script.events()
    return replace(events, events=events.events[:0])


@pytest.mark.parametrize("gils", [0, 1])
def test_who_had_it_has_it_still(gils: int) -> None:
    made = told(nothing(gils), [PID, 101, MUTEX])
    (process,) = timeline([made], Kernel().run(0, 50 * MS, 101), end=50 * MS).processes
    (hold,) = process.holds
    assert (hold["start"], hold["end"]) == (0, 50 * MS)
    assert process.threads[hold["thread"]].tid == 101
    assert process.threads[hold["thread"]].name == "other"
    assert process.note == ""
    assert judge(process).kind == "single-threaded"
    assert not process.violations


def test_who_waits_for_it_waits_for_that_thread() -> None:
    script = Script((PID,)).request(5 * MS, 0).timeout(10 * MS, 0)
    (process,) = timeline(
        [told(script.events(), [PID, 101, MUTEX])], Kernel().run(0, 50 * MS, 101), end=50 * MS
    ).processes
    (hold,) = process.holds
    assert (process.threads[hold["thread"]].tid, hold["gil"]) == (101, 0)
    assert len(process.waits) == 1


def test_a_thread_that_is_on_record_is_there_once() -> None:
    script = Script((PID, 101), gils=2).acquire(MS, 1, gil=1).release(2 * MS, 1, gil=1)
    made = told(script.events(), [PID, 101, MUTEX], [PID, 0, MUTEX + 1])
    assert [thread.tid for thread in made.threads] == [PID, 101]
    assert made.events["gil"].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    "script",
    [Script((PID,)).acquire(5 * MS, 0), Script((PID,)).release(5 * MS, 0)],
    ids=["take", "let go"],
)
def test_what_is_on_record_counts(script: Script) -> None:
    made = told(script.events(), [PID, 101, MUTEX])
    assert len(made.events) == len(script.records)
    assert not made.unused


def test_a_free_one_that_nobody_wants_was_free() -> None:
    made = told(nothing(), [PID, 0, MUTEX])
    assert made.unused
    (process,) = timeline([made], Kernel().run(0, MS, PID), end=100 * MS).processes
    assert judge(process).kind == "idle"
    (process,) = timeline([made], Kernel().run(0, 100 * MS, PID), end=100 * MS).processes
    assert judge(process).summary.startswith("Off the GIL")


def test_nothing_is_made_of_what_is_not_known() -> None:
    empty = nothing()
    for holders in ([], [[PID + 1, 101, MUTEX]]):
        made = told(empty, *holders)
        assert not made.unused
        assert len(made.events) == 0
    assert len(told(replace(empty, lost=3), [PID, 101, MUTEX]).events) == 0


def test_the_program_that_a_process_goes_on_with_begins_anew() -> None:
    first, second = with_holders([nothing(), nothing()], [[PID, 101, MUTEX]], NAMES)
    assert (len(first.events), len(second.events)) == (1, 0)
    assert not second.unused
    left, _ = with_holders([not_python(0, "sleep"), nothing()], [[PID, 101, MUTEX]], NAMES)
    assert np.array_equal(left.events, not_python(0, "sleep").events)

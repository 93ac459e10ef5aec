"""The promises of the timeline hold, and breaking one is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from giltrace.timeline.invariants import check
from giltrace.timeline.model import Process
from tests.unit.gil_events import PID, Kernel, Script, process


@pytest.fixture
def sound() -> Process:
    script = Script(tids=(PID, 101)).hold(10, 20, 0).hold(22, 30, 1, asked=12).hold(31, 50, 0, asked=25)
    kernel = Kernel().run(0, 60, PID).run(5, 60, 101, 1).ended(60, PID).ended(60, 101)
    built = process(script, kernel)
    assert built.violations == ()
    return built


def test_overlapping_records_are_told_by_name() -> None:
    script = Script().acquire(10, 0).acquire(15, 1).release(20, 0).release(30, 1)
    (told,) = [v for v in process(script).violations if "overlapping" in v]
    assert told.startswith("overlapping holds of GIL 0: 1 ('thread-0' (tid 100) and 'thread-1' (tid 101) ")


def test_many_overlaps_are_counted_and_few_are_named() -> None:
    script = Script()
    for i in range(10):
        script.acquire(100 * i + 1, 0).acquire(100 * i + 2, 1).release(100 * i + 3, 0).release(100 * i + 4, 1)
    (told,) = [v for v in process(script).violations if "overlapping" in v]
    assert told.startswith("overlapping holds of GIL 0: 10 (")
    assert told.endswith(", and 7 more)")


def test_holds_of_different_gils_may_overlap() -> None:
    script = Script(gils=2).acquire(10, 0, gil=0).acquire(15, 1, gil=1).release(20, 0, gil=0).release(30, 1, gil=1)
    assert process(script).violations == ()


def test_an_empty_hold_overlaps_nothing() -> None:
    script = Script().acquire(10, 0).release(10, 0).acquire(10, 1).release(20, 1)
    assert process(script).violations == ()


def test_a_tampered_hold_overlaps(sound: Process) -> None:
    holds = sound.holds.copy()
    holds["end"][0] += 5
    told = check(replace(sound, holds=holds))
    assert any("overlapping holds of GIL 0: 1" in v for v in told)
    assert any("held 42 ns + free 21 ns is not the wall time of 60 ns" in v for v in told)


def test_a_hold_beyond_the_process_breaks_the_wall_time(sound: Process) -> None:
    holds = sound.holds.copy()
    holds["end"][-1] = 70
    assert check(replace(sound, holds=holds)) == ("GIL 0: held 57 ns + free 13 ns is not the wall time of 60 ns",)


def test_a_hold_that_ends_before_it_starts(sound: Process) -> None:
    holds = sound.holds.copy()
    holds["end"][1] = 15
    assert any(v.startswith("holds that end before they start: 1") for v in check(replace(sound, holds=holds)))


@pytest.mark.parametrize(
    ("field", "row", "change"), [("end", 0, 1), ("start", 0, 1), ("end", -1, -1), ("start", 2, -2)]
)
def test_tampered_states_do_not_tile(sound: Process, field: str, row: int, change: int) -> None:
    states = sound.states.copy()
    states[field][row] += change
    (told,) = check(replace(sound, states=states))
    assert told.startswith("threads whose states do not tile their lifetime: 1 ('thread-")


def test_a_missing_state_is_noticed(sound: Process) -> None:
    states = np.delete(sound.states, 1)
    (told,) = check(replace(sound, states=states))
    assert "'thread-0' (tid 100): -10 ns" in told


def test_states_of_a_whole_thread_missing(sound: Process) -> None:
    (told,) = check(replace(sound, states=sound.states[sound.states["thread"] == 0]))
    assert "'thread-1' (tid 101)" in told


def test_states_out_of_order(sound: Process) -> None:
    assert check(replace(sound, states=sound.states[::-1])) == ("states are not sorted by thread",)

"""What it would bring if a hog released the GIL, for programs whose makespan can be worked out by hand."""

from __future__ import annotations

import pytest

from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.hogs import find_hogs
from giltrace.analysis.replay.released import released
from giltrace.analysis.replay.what_if import what_if
from tests.unit.block_events import Scene
from tests.unit.gil_events import MS, US

CALL, CALLS = 40 * MS, 10


def bound(work: int) -> float:
    """Thread 1 has the GIL for ten calls of 40 ms, thread 2 for `work` ns after each of them."""
    scene = Scene(3).hold(0, 10 * US, 0, "start")
    at = 10 * US
    for _ in range(CALLS):
        scene.hold(at, at + CALL, 1, "hog")
        scene.script.request(at + MS, 2)
        for time in range(at + 6 * MS, at + CALL, 5 * MS):
            scene.script.timeout(time, 2)
        at += CALL + 10 * US
        scene.script.acquire(at, 2).release(at + work, 2)
        scene.of_hold[2, at] = scene._stack("work")
        scene.run(at, at + work, 2).script.request(at + 10 * US, 1)
        at += work + 10 * US
    process = scene.process(at)
    figures = Costed(process)
    hogs = find_hogs(process)
    assert [hog.site.function for hog in hogs] == ["hog"]
    (found,) = released(process, figures.sites, hogs, what_if(process, 2))
    assert at == pytest.approx(CALLS * (CALL + work), rel=0.01)
    return found


def test_next_to_a_little_work_it_brings_what_that_took() -> None:
    assert bound(100 * US) == pytest.approx((CALL + 100 * US) / CALL, abs=0.01)


def test_it_still_waits_for_turns_of_those_who_have_the_gil_when_it_comes_back() -> None:
    """The other has it for 4 of 40 ms, and 2 ms more on average when the call is over in just these."""
    assert bound(4 * MS) == pytest.approx(44 / 40.2, abs=0.01)
    assert bound(4 * MS) < 44 / 40


def test_nobody_waits_for_longer_than_the_switch_interval() -> None:
    """Half of the 40 ms the GIL is with others, in turns of 20 ms, which are cut to 5 ms for a thread that asks."""
    assert bound(20 * MS) == pytest.approx(60 / (40 + 25 / 2 / 40), abs=0.02)


def test_without_hogs() -> None:
    process = Scene(1).hold(0, MS, 0, "work").process(MS)
    assert released(process, Costed(process).sites, (), what_if(process, 2)) == ()

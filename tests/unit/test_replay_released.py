"""What it would bring if a hog released the GIL, for programs whose makespan can be worked out by hand."""

from __future__ import annotations

import pytest

from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.hogs import find_hogs
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.wait_causes import UNHEEDED_NS
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
    (found,) = released(process, figures.sites, hogs, what_if(process, 2), usage.overstays(process, UNHEEDED_NS))
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
    over = usage.overstays(process, UNHEEDED_NS)
    assert released(process, Costed(process).sites, (), what_if(process, 2), over) == ()


def once(before: int) -> float:
    """At one line thread 1 has the GIL a hundred times for 5 ms, as thread 2 has; but once for 10 ms.

    In that hold it runs alone for so long `before` anybody asks.
    """
    scene, at = Scene(3).hold(0, 10 * US, 0, "start"), 10 * US
    for number in range(100):
        early, end = (before, at + before + 10 * MS) if number == 50 else (0, at + 5 * MS)
        scene.hold(at, end, 1, "hog").script.request(at + early, 2).timeout(at + early + 5 * MS, 2)
        scene.script.acquire(end + 10 * US, 2).release(end + 5 * MS, 2)
        scene.of_hold[2, end + 10 * US] = scene._stack("work")
        scene.run(end + 10 * US, end + 5 * MS, 2).script.request(end + 20 * US, 1)
        at = end + 5 * MS + 10 * US
    process = scene.process(at)
    hogs, over = find_hogs(process), usage.overstays(process, UNHEEDED_NS)
    assert [hog.count for hog in hogs] == [1]
    replayed = what_if(process, 2)
    assert replayed.speedup_bound > 1.4  # more than the hog has to do with
    (found,) = released(process, Costed(process).sites, hogs, replayed, over)
    return found


def test_one_hold_too_long_brings_no_more_than_it_took() -> None:
    """Of others at the line nothing is said: they gave the GIL up as soon as they were asked to."""
    assert once(0) == pytest.approx(1010 / 1000, abs=0.002)


def test_what_nobody_waited_for_would_bring_nothing() -> None:
    assert once(600 * MS) == pytest.approx(1610 / 1600, abs=0.002)

"""The switch interval: read off timed-out waits, and what hogs and convoys are measured by."""

from __future__ import annotations

import numpy as np
import pytest

from giltrace.analysis.durations import duration
from giltrace.analysis.findings.convoy import find_convoys
from giltrace.analysis.findings.long_interval import LONG_NS
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.measure.usage import DEFAULT_SWITCH_INTERVAL_NS, switch_interval
from giltrace.timeline.model import Process
from tests.unit.block_events import Scene
from tests.unit.gil_events import MS, PID, US, Kernel, Script, process


def steps(wait: int, interval_us: int, number: int = 50) -> Process:
    """Thread 1 counts; thread 2 sleeps 1 ms, waits, holds 10 us; each wait's first timed wait is `interval_us` long."""
    return process(changing((wait, interval_us, number)))


def changing(*parts: tuple[int, int, int]) -> Script:
    """See `steps`; one part after the other."""
    script, at = Script(), 0
    for wait, interval_us in [(wait, interval_us) for wait, interval_us, number in parts for _ in range(number)]:
        wants = at + MS
        script.acquire(at, 1).request(wants, 2).timeout(wants + interval_us * US, 2, us=interval_us)
        end = wants + wait
        script.release(end, 1, forced=True).acquire(end + US, 2).release(end + 11 * US, 2)
        at = end + 12 * US
    return script


def test_estimates_are_made_of_the_waits_under_one_interval_and_their_time() -> None:
    """Steps of 11 ms for most of the time, after some of 3 ms: with Python's own interval they take 6 ms."""
    (found,) = find_convoys(process(changing((2 * MS, 2000, 40), (10 * MS, 10_000, 60))))
    assert found.switch_interval_ns == 10 * MS
    assert [one.switch_interval_ns for one in found.estimates] == [5 * MS, MS, 500 * US, 100 * US]
    for one in found.estimates:
        assert one.wait_per_step_ns == pytest.approx(one.switch_interval_ns, rel=0.02)
        assert one.steps_per_s == pytest.approx(1e9 / (MS + one.switch_interval_ns), rel=0.05)


def test_of_an_interval_that_became_long_no_convoy_is_told_and_how_holds_ended() -> None:
    made = process(changing((5 * MS, 5000, 40), (400 * MS, 400_000, 8)))
    verdict = judge(made)
    assert verdict.summary.startswith("Starved by the switch interval: it was 400 ms")
    assert "by themselves" not in verdict.summary
    assert find_convoys(made) == ()
    assert "by themselves" in judge(starved(500 * MS, 100_000_000, 50 * US)).summary


def test_is_read_off_timed_out_waits_and_where_it_changed() -> None:
    script = Script(gils=2).acquire(0, 1).acquire(0, 0, gil=1)
    script.request(MS, 2)
    for time in (6, 11):
        script.timeout(time * MS, 2, us=5000)
    script.timeout(11 * MS + 50 * US, 2, us=50)
    script.request(20 * MS, 2, gil=1).timeout(143 * MS, 2, gil=1, us=123_000)
    seen = process(script).switch_intervals
    assert list(zip(seen["start"].tolist(), seen["gil"].tolist(), seen["ns"].tolist(), strict=True)) == [
        (1 * MS, 0, 5 * MS),
        (11 * MS, 0, 50 * US),
        (20 * MS, 1, 123 * MS),
    ]


@pytest.mark.parametrize("us", [1, 50, 499, 999, 1000, 5000, 123_000, 999_000_000, 1_000_000_000])
def test_three_digits_hold_what_people_set(us: int) -> None:
    script = Script().acquire(0, 1).request(MS, 2).timeout(MS + us * US, 2, us=us)
    assert process(script).switch_intervals["ns"].tolist() == [us * US]


def test_is_read_off_waits_that_did_not_run_out() -> None:
    script = Script().acquire(0, 1).request(MS, 2, us=100_000_000).release(500 * MS, 1).acquire(500 * MS + US, 2)
    script.release(501 * MS, 2).acquire(502 * MS, 1).request(503 * MS, 2, us=5000).timeout(508 * MS, 2, us=5000)
    seen = process(script).switch_intervals
    assert list(zip(seen["start"].tolist(), seen["ns"].tolist(), strict=True)) == [
        (1 * MS, 100_000 * MS),
        (503 * MS, 5 * MS),
    ]


def test_is_the_default_where_nothing_is_known() -> None:
    made = process(Script(gils=2).acquire(0, 1).request(MS, 2).timeout(6 * MS, 2).acquire(7 * MS, 0, gil=1))
    assert len(made.switch_intervals) == 0
    time = np.array([0, 6 * MS])
    assert switch_interval(made, np.array([0, 1]), time).tolist() == [DEFAULT_SWITCH_INTERVAL_NS] * 2


def test_is_looked_up_by_gil_and_time() -> None:
    script = Script(gils=2).acquire(0, 1).request(MS, 2).timeout(6 * MS, 2, us=5000)
    made = process(script.timeout(7 * MS, 2, us=500))
    gil, time = np.array([0, 0, 0, 1]), np.array([0, 2 * MS, 8 * MS, 8 * MS])
    assert switch_interval(made, gil, time).tolist() == [5 * MS, 5 * MS, 500 * US, DEFAULT_SWITCH_INTERVAL_NS]


@pytest.mark.parametrize(
    ("wait", "interval_us", "kind"),
    [
        (600 * US, 500, "convoy"),
        (5 * MS + 100 * US, 5000, "convoy"),
        (40 * MS, 20_000, "convoy"),
        (6 * MS, 20_000, "cpu-bound-contention"),
    ],
)
def test_a_convoy_waits_for_about_one_interval(wait: int, interval_us: int, kind: str) -> None:
    made = steps(max(wait, interval_us * US), interval_us) if kind == "convoy" else _early(wait, interval_us)
    verdict = judge(made)
    assert verdict.kind == kind
    convoys = find_convoys(made)
    # Of a long one the verdict tells, and nothing else.
    told = kind == "convoy" and interval_us * US < LONG_NS
    assert verdict.summary.startswith("Starved") is (kind == "convoy" and not told)
    assert [convoy.switch_interval_ns for convoy in convoys] == [interval_us * US] * told
    assert all(one.switch_interval_ns < interval_us * US for convoy in convoys for one in convoy.estimates)


def starved(held: int, interval_us: int, short: int) -> Process:
    """Thread 1 holds for `held` until it blocks for 20 ms; thread 2 wants it all the time, for `short` after 1 ms."""
    script, at = Script(), 0
    for _ in range(8):
        script.acquire(at, 1).request(at + MS, 2, us=interval_us).release(at + held, 1)
        script.acquire(at + held + US, 2).release(at + held + US + short, 2)
        at += held + short + 20 * MS
    return process(script)


@pytest.mark.parametrize(
    ("held", "interval_us", "short", "found"),
    [
        (500 * MS, 100_000_000, 50 * US, True),
        (100 * MS, 1_000_000, 4 * MS, True),
        (500 * MS, 19_900, 50 * US, False),  # others ask for the GIL often enough
        (11 * MS, 100_000_000, 50 * US, True),
        (10 * MS, 100_000_000, 50 * US, False),  # not twice as long as with Python's own
        (500 * MS, 100_000_000, 6 * MS, False),  # thread 2 would keep it for its interval too
    ],
)
def test_a_long_interval_starves_short_steps(held: int, interval_us: int, short: int, found: bool) -> None:
    verdict = judge(starved(held, interval_us, short))
    assert verdict.summary.startswith("Starved by the switch interval") is found
    if found:
        assert verdict.kind == "convoy"
        assert verdict.evidence["switch_interval_ns"] == interval_us * US
        assert verdict.evidence["steps"] == 8
        assert verdict.evidence["saved_ns"] == pytest.approx(8 * (held - 6 * MS), rel=0.01)
        assert "sys.setswitchinterval()" in verdict.advice


def served(interval_us: int) -> Process:
    """Thread 1 computes for 100 ms at a time, and has woken thread 2 up each time, which holds for a moment."""
    made, turn = Scene(3).hold(0, 10 * US, 0, "start"), 101 * MS
    for item in range(8):
        begin = item * turn + 20 * US
        made.hold(begin, begin + 100 * MS, 1, "compute")
        made.block(begin - 15 * US, begin + MS, 2, at="get", by=1, wake="compute", owned=False)
        made.script.request(begin + MS, 2, us=interval_us)
        made.hold(begin + 100 * MS + US, begin + 100 * MS + 51 * US, 2, "get")
    made.hold(8 * turn + 20 * US, 8 * turn + 90 * MS, 1, "compute")
    made.ends = {2: 8 * turn}
    return made.process(8 * turn + 91 * MS)


def test_who_is_starved_by_those_that_it_serves_is_starved() -> None:
    """With an interval that nobody has tuned, the same figures are those of one thread that all serve."""
    assert judge(served(0)).summary.startswith("One thread is what all hangs on")
    assert judge(served(100_000_000)).summary.startswith("Starved by the switch interval: it was 100 s")


@pytest.mark.parametrize(
    ("held", "interval_us", "told"),
    [
        (500 * MS, 100_000_000, True),
        (30 * MS, 20_000, True),
        (30 * MS, 19_900, False),  # others ask for the GIL often enough
        (10 * MS, 100_000_000, False),  # not twice as long as with Python's own
    ],
)
def test_a_long_interval_is_named_where_those_who_wait_compute_too(held: int, interval_us: int, told: bool) -> None:
    verdict = judge(starved(held, interval_us, held))
    assert verdict.kind != "convoy"
    assert ("sys.setswitchinterval()" in verdict.advice) is told
    assert (f"interval was {duration(interval_us * US)} where Python starts with 5.00 ms" in verdict.advice) is told


def _early(wait: int, interval_us: int) -> Process:
    """Steps whose waits end long before an interval is over, after one wait that tells the interval."""
    script = Script().acquire(0, 1).request(MS, 2).timeout(MS + interval_us * US, 2, us=interval_us)
    at = 2 * MS + interval_us * US
    script.release(at, 1, forced=True).acquire(at + US, 2).release(at + 11 * US, 2)
    for _ in range(50):
        at += 20 * US
        script.acquire(at, 1).request(at + MS, 2).release(at + MS + wait, 1)
        at += MS + wait
        script.acquire(at + US, 2).release(at + 11 * US, 2)
    return process(script)


@pytest.mark.parametrize(("interval_us", "hog"), [(500, True), (5000, False)])
def test_a_hog_outlasts_two_intervals(interval_us: int, hog: bool) -> None:
    """Each hold goes on for 8 ms after the request."""
    script, kernel, at = Script(tids=(PID, 101, 102)), Kernel(), 0
    for _ in range(20):
        asks = at + MS + interval_us * US
        script.acquire(at, 1).request(at + MS, 2).timeout(asks, 2, us=interval_us)
        end = asks + 8 * MS
        script.release(end, 1).acquire(end + US, 2).release(end + 5 * MS, 2)
        kernel.run(at, end, 101, 0).run(end + US, end + 5 * MS, 102, 0)
        at = end + 6 * MS
    assert (judge(process(script, kernel)).kind == "hog") is hog

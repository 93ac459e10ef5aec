"""The figures at which a verdict becomes another one: each just below its edge, at it, and just above."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings import figures, hogs, imports, io_bound, long_interval, single
from giltrace.analysis.findings.contention import contended, contention
from giltrace.analysis.findings.convoy import convoy, find_convoys
from giltrace.analysis.findings.costs import Cause, Costed, find_costs
from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.measure import usage
from giltrace.timeline.model import Process
from tests.unit import test_findings
from tests.unit import test_summary_verdict as made
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, PID, US, Kernel, Script, process

#: Added to a figure's edge: with the second of them it is at the edge.
AROUND = (-1, 0, 1)


def with_figures(base: Process, **known: Any) -> Costed:
    """The figures of a process, but for some that are given."""
    found = Costed(base)
    vars(found).update(known)
    return found


def around(share: float) -> list[float]:
    """A share just below, at and above an edge."""
    return [share - 1e-9, share, share + 1e-9]


def said(verdict: Verdict | None) -> bool:
    return verdict is not None


@pytest.mark.parametrize(
    ("figure", "values"),
    [("competed_share", around(0.3)), ("used_ns", [500 * MS + by for by in AROUND]), ("contenders", [1, 2, 3])],
)
def test_contention(figure: str, values: list[float]) -> None:
    base = process(*made.cpu_bound())
    found = [said(contended(with_figures(base, had=1000 * MS, **{figure: value}))) for value in values]
    assert found == [False, True, True]


def test_who_waits_for_a_tenth_of_its_life_contends() -> None:
    f = with_figures(process(*made.cpu_bound()), lives=np.full(3, 1000), waited=np.array([99, 100, 101]))
    assert f.contenders == 2


def alone(f: Figures) -> Verdict:
    """What is said of one thread that has the GIL by itself."""
    found = single.single(f)
    assert found is not None
    return found


#: What hardly competes may be many things; what competes more is contention.
@pytest.mark.parametrize(
    ("figure", "judged", "expected"),
    [
        ("lasting_share", lambda f: judge(f.process, f).kind == "cpu-bound-contention", [False, False, True]),
        ("competed_share", lambda f: "costs nothing here" in alone(f).advice, [True, True, False]),
        ("coreless_share", lambda f: "lacked a core" in alone(f).summary, [False, False, True]),
        ("contended_share", lambda f: "is not the limit" in io_bound.io_bound(f).advice, [True, True, False]),
    ],
    ids=["lasting", "competed", "coreless", "contended"],
)
def test_a_tenth_of_the_time_is_hardly(figure: str, judged: Callable[[Figures], bool], expected: list[bool]) -> None:
    base = process(*(made.io_bound() if figure in ("lasting_share", "contended_share") else made.single()))
    known: dict[str, float] = {"competed_share": 0.2} if figure == "lasting_share" else {"holders": 2}
    found = [judged(with_figures(base, **known, **{figure: value})) for value in around(figures.QUIET_SHARE)]
    assert found == expected


def test_waits_are_hardly_looked_into_below_a_tenth_of_the_time() -> None:
    """A module that is imported makes others wait for most of the time; that is told where they compete at all."""
    frozen = ("_call_with_frames_removed", "<frozen importlib._bootstrap>", 241)
    base = test_findings.importing(("<module>", "/srv/big.py", 3), frozen)
    told = [judge(base, with_figures(base, competed_share=value)).summary for value in around(figures.QUIET_SHARE)]
    assert [text.startswith("Imports") for text in told] == [False, False, True]


def overstaying(ns: int, interval_us: int) -> Process:
    """Thread 1 keeps the GIL for `ns` after it was asked to drop it, after an interval of so many microseconds."""
    script = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0).acquire(MS, 1).request(2 * MS, 2, us=interval_us)
    asked = 2 * MS + interval_us * US
    script.timeout(asked, 2, us=interval_us).release(asked + ns, 1).acquire(asked + ns + US, 2)
    end = asked + ns + 2 * US
    return process(script.release(end, 2), Kernel().run(MS, end, 101).ended(end, 101).ended(end, 102).ended(end, PID))


@pytest.mark.parametrize(("interval_us", "edge"), [(5000, 10 * MS), (100, MS)])
def test_a_hog_goes_on_for_two_intervals_and_for_a_millisecond(interval_us: int, edge: int) -> None:
    found = [len(figures.hogs(overstaying(edge + by, interval_us)).hold) for by in AROUND]
    assert found == [0, 1, 1]


def test_hogs_count_from_a_twentieth_of_the_time_on() -> None:
    f = with_figures(process(*made.hog()))
    over = int(f.overstays.length.sum())
    found = [said(hogs.hog(with_figures(f.process, had=20 * over - by))) for by in AROUND]
    assert found == [False, True, True]


def test_hogs_slept_if_they_did_for_half_of_what_they_overstayed() -> None:
    base = process(*made.hog())
    found = [with_figures(base, asleep_share=share) for share in around(hogs.ASLEEP_SHARE)]
    assert [said(hogs.hog(f)) for f in found] == [True, False, False]
    assert [said(hogs.asleep(f)) for f in found] == [False, True, True]


def test_hogs_are_collections_if_half_of_what_was_seen_of_them_is() -> None:
    base = process(*made.hog())
    every = np.ones(5, np.bool_)
    seen = [with_figures(base, collecting_share=share, collections=every) for share in around(figures.COLLECTING_SHARE)]
    assert [said(hogs.hog(f)) for f in seen] == [True, False, False]
    assert [said(hogs.collection(f)) for f in seen] == [False, True, True]


def stepping(
    *, wait: int = 5 * MS, hold: int = 10 * US, competed: int | None = None, steps: int = 40, beside: int = 0
) -> Process:
    """Thread 2 takes `steps` of `hold`, each after a `wait`, of which thread 1 has the GIL for `competed` (ns).

    At the end it waits for `beside` (ns) for a turn too long for a step.
    """
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel()
    at = MS
    for _ in range(steps):
        wants = at + 6 * MS
        stops = wants + (wait if competed is None else competed)
        script.acquire(at, 1).request(wants, 2).release(stops, 1, forced=True)
        kernel.run(at, stops, 101, 1)
        begin = wants + wait
        script.acquire(begin, 2).release(begin + hold, 2)
        kernel.run(begin, begin + hold, 102)
        at = begin + hold + 50 * US
    if beside:
        stops = at + MS + beside
        script.acquire(at, 1).request(at + MS, 2).release(stops, 1).acquire(stops, 2).release(stops + 2 * MS, 2)
        kernel.run(at, stops, 101, 1).run(stops, stops + 2 * MS, 102)
        at = stops + 3 * MS
    return process(script, kernel.ended(at, PID).ended(at, 101).ended(at, 102))


#: A step waits for half an interval, a tenth of one for a thread that runs, and holds for a millisecond at most.
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda by: stepping(wait=2500 * US + by), [False, True, True]),
        (lambda by: stepping(competed=500 * US + by), [False, True, True]),
        (lambda by: stepping(hold=MS + by), [True, True, False]),
        (lambda by: stepping(steps=10 + by), [False, True, True]),
    ],
    ids=["wait", "competed", "hold", "steps"],
)
def test_steps_of_a_convoy(make: Callable[[int], Process], expected: list[bool]) -> None:
    assert [Figures(make(by)).convoy.steps.number[2] >= figures.CONVOY_STEPS for by in AROUND] == expected


def test_who_is_in_a_convoy_lost_mostly_before_steps_and_much_of_its_life() -> None:
    base = stepping()
    waited = int(Figures(base).waited[2])
    lives = [np.full(3, waited * 4 - by) for by in AROUND]
    assert [bool(with_figures(base, lives=value).convoy.threads) for value in lives] == [False, True, True]
    # The steps' waits are 3/4 of the thread's, at the edge: a third more of other waits.
    found = [bool(Figures(stepping(beside=waited // 3 - by)).convoy.threads) for by in AROUND]
    assert found == [False, True, True]


def test_waiting_for_cores_is_no_part_of_what_a_convoy_costs_nor_of_the_life_it_is_held_against() -> None:
    """Of each wait of 20 ms, thread 1 has the GIL for 5, and it is free for 15."""
    base = stepping(wait=20 * MS, competed=5 * MS)
    lost, free = 40 * 5 * MS, 40 * 15 * MS
    found = [bool(with_figures(base, lives=np.full(3, lost * 4 + free - by)).convoy.threads) for by in AROUND]
    assert found == [False, True, True]


def test_what_is_left_of_a_convoys_wait_is_latency_up_to_a_tenth_of_an_interval() -> None:
    """Latency stays with another interval; what is longer is part of a turn, and shrinks with it."""
    found = []
    for by in (-50 * US, -US, US, 50 * US):
        (one,) = find_convoys(stepping(wait=5500 * US + by))
        found.append(next(est.wait_per_step_ns for est in one.estimates if est.switch_interval_ns == MS))
    assert found[:2] == [MS + 450 * US, MS + 499 * US]
    assert found[2:] == [1100 * US + 200, 1110 * US]


@pytest.mark.parametrize(("by", "behind"), [(-US, False), (0, False), (US, True)])
def test_who_waited_mostly_for_hogs_is_not_told_of_another_interval(by: int, behind: bool) -> None:
    """Thread 2's waits of 16 ms before 20 steps; thread 1 keeps the GIL in C in half of that time."""
    script, kernel, at = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel(), MS
    for _ in range(20):
        wants, in_c = at + MS, 20 * MS + by
        script.acquire(at, 1).request(wants, 2).timeout(wants + 5 * MS, 2).release(wants + in_c, 1)
        kernel.run(at, wants + in_c, 101, 1)
        mid, begin = wants + in_c, wants + 40 * MS
        script.acquire(mid, 1).release(begin, 1, forced=True)
        kernel.run(mid, begin, 101, 1)
        script.acquire(begin + US, 2).release(begin + 11 * US, 2)
        at = begin + 20 * US
    base = process(script, kernel.ended(at, PID).ended(at, 101).ended(at, 102))
    assert said(convoy(Figures(base)))
    # Each wait is a microsecond longer than both holds.
    assert (find_convoys(base) == ()) == behind


def handed(ns: int) -> Process:
    """Thread 2 waits for so long, all of it while thread 1 runs."""
    script = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0).acquire(MS, 1).request(2 * MS, 2)
    script.release(2 * MS + ns, 1).acquire(2 * MS + ns, 2).release(3 * MS + ns, 2)
    end = 3 * MS + ns
    return process(script, Kernel().run(MS, end, 101).ended(end, 101).ended(end, 102).ended(end, PID))


def test_what_is_waited_for_less_than_a_tenth_of_a_millisecond_is_a_hand_off() -> None:
    found = [find_costs(Costed(handed(figures.TURN_NS + by))).of_threads() for by in AROUND]
    assert [int(lost[Cause.HAND_OFFS]) for lost in found] == [figures.TURN_NS - 1, 0, 0]
    assert [int(lost[Cause.CONTENTION]) for lost in found] == [0, figures.TURN_NS, figures.TURN_NS + 1]
    lasting = [with_figures(handed(figures.TURN_NS + by), had=10**9).lasting_share for by in AROUND]
    assert [share > 0 for share in lasting] == [False, True, True]


def test_imports_count_from_a_twentieth_of_the_time_on() -> None:
    frozen = ("_call_with_frames_removed", "<frozen importlib._bootstrap>", 241)
    base = test_findings.importing(("<module>", "/srv/big.py", 3), frozen)
    lost = Costed(base).costs.ns[:, Cause.IMPORT]
    most = int(np.bincount(base.waits["thread"], weights=lost).max())
    found = [said(imports.imports(with_figures(base, had=20 * most - by))) for by in AROUND]
    assert found == [False, True, True]


def test_hand_offs_are_told_where_they_take_a_tenth_of_the_time() -> None:
    base = process(*made.io_bound())
    at = 1_000_000 * io_bound.HAND_OFF_NS * 10
    found = [io_bound.io_bound(with_figures(base, hand_offs=1_000_000 + by, wall=at)).advice for by in AROUND]
    assert ["times per second" in advice for advice in found] == [False, False, True]


@pytest.mark.parametrize(("by", "found"), [(-1, False), (0, True), (1, True)])
def test_a_line_where_threads_are_blocked_for_three_tenths_stands_out(by: int, found: bool) -> None:
    """Threads 1 to 4 are blocked 300, 250, 250 and 200 ms at a line each."""
    script, kernel = Script(tids=(PID, 101, 102, 103, 104)).hold(0, 10 * US, 0), Kernel().run(0, 10 * US, PID)
    begin = MS
    for thread, blocked in enumerate((300 * MS + by, 250 * MS - by, 250 * MS, 200 * MS), 1):
        script.hold(begin, begin + US, thread).hold(begin + US + blocked, begin + US + blocked + US, thread)
        kernel.run(begin, begin + US, 100 + thread).run(begin + US + blocked, begin + 2 * US + blocked, 100 + thread)
        kernel.ended(begin + 2 * US + blocked, 100 + thread)
        begin += 400 * MS
    lines = [[("fetch", "/srv/app.py", line)] for line in range(1, 5)]
    base = with_stacks(process(script, kernel.ended(begin, PID)), lines, hold={1: 0, 2: 1, 3: 2, 4: 3})
    assert ("blocked at fetch (app.py:1)" in io_bound.io_bound(Costed(base)).advice) == found


def starved(*, interval: int = 20 * MS, over: int = 6 * MS, hold: int = 100 * US, lasts: int = 0) -> Process:
    """Thread 2 waits once, `over` longer than Python's interval and under another one; living for `lasts`."""
    us = interval // US
    script = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0).acquire(MS, 1).request(2 * MS, 2, us=us)
    end = 2 * MS + usage.DEFAULT_SWITCH_INTERVAL_NS + over
    script.release(end, 1).acquire(end, 2).release(end + hold, 2)
    kernel = Kernel().run(MS, end, 101).born(2 * MS, 102).run(end, end + hold, 102)
    last = max(end + hold, 2 * MS + lasts)
    return process(script, kernel.ended(last, 101).ended(last, 102).ended(last, PID))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        # Times in records are whole microseconds.
        (lambda by: starved(interval=long_interval.LONG_NS + by * MS), [False, True, True]),
        (lambda by: starved(over=5 * MS + by), [False, True, True]),
        (lambda by: starved(hold=5 * MS + by), [True, True, False]),
        (lambda by: starved(lasts=60 * MS - by), [False, True, True]),
    ],
    ids=["interval", "twice", "hold", "share"],
)
def test_who_is_starved_by_the_switch_interval(make: Callable[[int], Process], expected: list[bool]) -> None:
    assert [said(long_interval.long_interval(Figures(make(by)))) for by in AROUND] == expected


def test_the_seconds_waited_are_of_so_many_threads() -> None:
    """Those that wait for less of their lives than makes contention are in the sum, and are counted with it."""
    f = with_figures(process(*made.cpu_bound()), lives=np.full(3, 1000), waited=np.array([1, 100, 0]))
    assert f.contenders == 1
    assert "over 2 threads" in contention(f).summary


def test_the_share_of_lives_is_of_the_threads_that_are_told() -> None:
    """A thread that never had the GIL is not among those that spent their lives off it."""
    known = {"lives": np.array([100, 100, 1000]), "held": np.array([50, 50, 0]), "holds": np.array([1, 1, 0])}
    f = with_figures(process(*made.io_bound()), waited=np.zeros(3, np.int64), holders=2, **known)
    assert "2 threads spent 50.0% of their lives" in io_bound.io_bound(f).summary

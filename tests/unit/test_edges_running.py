"""The figures at which a verdict on what threads did becomes another one: just below the edge, at it, just above."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.findings import parallel, phases, serial, single, unused, verdict
from giltrace.analysis.findings.costs import Cause, Costs
from giltrace.analysis.findings.figures import TURN_NS
from giltrace.analysis.findings.phases import find_phases
from giltrace.analysis.findings.ranked import LEAST_SHARE, find_findings
from giltrace.analysis.measure.usage import Running
from giltrace.timeline.model import Process
from tests.unit import test_phases
from tests.unit import test_summary_verdict as made
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, PID, US, Kernel, Script, process, timeline
from tests.unit.test_edges_waits import AROUND, around, said, with_figures


@pytest.mark.parametrize(
    ("figure", "values"),
    [
        ("off_running_ns", [800 * MS - 1, 800 * MS, 800 * MS + 1]),
        ("had", [8000 * MS + 1, 8000 * MS, 8000 * MS - 1]),
        ("overlap_share", around(parallel.OVERLAP)),
    ],
)
def test_native_code_is_parallel_beside_what_is_held_and_at_once(figure: str, values: list[float]) -> None:
    known: dict[str, float] = {
        "off_running_ns": 800 * MS,
        "used_ns": 1000 * MS,
        "had": 4000 * MS,
        "overlap_share": 0.5,
    }
    base = process(*made.parallel())
    found = [said(parallel.parallel(with_figures(base, **{**known, figure: value}))) for value in values]
    assert found == [False, True, True]


@pytest.mark.parametrize(("overlap", "expected"), [(0.4, [None, "more", "more"]), (0.6, ["lacked", "more", "more"])])
def test_cores_are_several_from_one_and_a_fifth_on(overlap: float, expected: list[str | None]) -> None:
    """With fewer, threads ran at once if they could have half of the time."""
    known = {"off_running_ns": 800 * MS, "used_ns": 400 * MS, "had": 4000 * MS, "overlap_share": overlap}
    base = process(*made.parallel())
    found: list[str | None] = []
    for by in AROUND:
        f = with_figures(base, **known, running=Running(10**9, 10**9), running_ns=1_200_000_000 + by)
        one = parallel.parallel(f)
        found.append(None if one is None else "more" if "more threads help" in one.advice else "lacked")
    assert found == expected


def test_threads_that_lacked_cores_could_have_run_at_once_for_half_of_the_time() -> None:
    known = {"off_running_ns": 800 * MS, "used_ns": 400 * MS, "had": 4000 * MS, "running_ns": 10**9}
    base = process(*made.parallel())
    values = around(parallel.LACKING_OVERLAP)
    found = [
        said(parallel.parallel(with_figures(base, **known, running=Running(10**9, 0), overlap_share=share)))
        for share in values
    ]
    assert found == [False, True, True]


def test_gils_are_used_at_once_from_a_fifth_on() -> None:
    base = process(*made.parallel())
    values = around(parallel.GILS_OVERLAP)
    assert [said(parallel.interpreters(with_figures(base, gils=2, overlap_share=share))) for share in values] == [
        False,
        True,
        True,
    ]
    assert not said(parallel.interpreters(with_figures(base, gils=1, overlap_share=1.0)))


def shared_call(alone: int, together: int, wall: int) -> Process:
    """Two threads are in one call off the GIL all the time: one of them runs for `alone`, then both for `together`."""
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel().run(0, 10 * US, PID)
    script.hold(20 * US, 21 * US, 1).hold(22 * US, 23 * US, 2)
    begin = 23 * US
    kernel.run(20 * US, begin + alone + together, 101).run(22 * US, begin, 102, 1)
    if together:
        kernel.run(begin + alone, begin + alone + together, 102, 1)
    for tid in (PID, 101, 102):
        kernel.ended(wall, tid)
    execute = [[("execute", "/srv/app.py", 9)]]
    return with_stacks(process(script, kernel, end=wall), execute, hold={1: 0, 2: 0})


@pytest.mark.parametrize(("part", "expected"), [("alone", [False, True, True]), ("together", [True, True, False])])
def test_a_call_lets_one_thread_in(part: str, expected: list[bool]) -> None:
    """One runs there for 30 % of the time at least, while several are in it; two run for at most a quarter of that."""
    found = []
    for by in AROUND:
        alone, together = (300 * MS + by, 0) if part == "alone" else (400 * MS, 100 * MS + by)
        f = with_figures(shared_call(alone, together, 1000 * MS), had=1000 * MS, off_running_ns=500 * MS)
        found.append(said(serial.serial(f)))
    assert found == expected


def test_it_is_looked_for_where_threads_ran_off_the_gil_for_three_tenths_of_the_time() -> None:
    base = shared_call(400 * MS, 0, 1000 * MS)
    values = [300 * MS + by for by in AROUND]
    found = [said(serial.serial(with_figures(base, had=1000 * MS, off_running_ns=ns))) for ns in values]
    assert found == [False, True, True]


def test_a_thread_is_on_its_own_with_nine_tenths_of_the_held_time() -> None:
    base = process(*made.io_bound())
    known = {"used_ns": 10**9, "had": 10**9, "busy_share": 0.6, "competed_share": 0.0, "held_ns": 10**9}
    found = []
    for by in AROUND:
        one = single.single(with_figures(base, **known, held=np.array([900 * MS + by, 100 * MS - by, 0])))
        found.append(said(one))
        assert one is None or one.summary.startswith("Single-threaded")
    assert found == [False, True, True]


@pytest.mark.parametrize(
    ("figure", "values"), [("used_share", around(single.TURNS_SHARE)), ("turn_ns", [TURN_NS + by for by in AROUND])]
)
def test_threads_take_turns(figure: str, values: list[float]) -> None:
    known: dict[str, object] = {"held": np.array([500, 500, 0]), "held_ns": 1000, "used_ns": 1000, "busy_share": 0.9}
    known |= {"competed_share": 0.0, "used_share": 0.9, "turn_ns": 10 * TURN_NS}
    base = process(*made.io_bound())
    found = [single.single(with_figures(base, **{**known, figure: value})) for value in values]
    assert [said(one) for one in found] == [False, True, True]
    assert all(one is None or "took turns" in one.summary for one in found)


@pytest.mark.parametrize(("holders", "edge"), [(1, unused.IDLE_SHARE), (2, unused.IDLE_SHARE_SEVERAL)])
@pytest.mark.parametrize("figure", ["busy_share", "contended_share"])
def test_who_hardly_runs_and_never_waits_is_idle(holders: int, edge: float, figure: str) -> None:
    base = process(*made.io_bound())
    known = {"busy_share": 0.0, "contended_share": 0.0, "holders": holders, "wall": 1, "had": 1}
    found = [said(unused.idle(with_figures(base, **{**known, figure: value}))) for value in around(edge)]
    assert found == [True, False, False]


def test_other_code_runs_off_a_free_gil_from_a_twentieth_of_the_time_on() -> None:
    base = replace(process(Script(tids=(PID,)), Kernel().run(0, MS, PID)), unused=True)
    found = []
    for share in around(unused.IDLE_SHARE):
        one = unused.not_recorded(with_figures(base, busy_share=share))
        assert one is not None
        found.append(one.kind)
    assert found == ["idle", "io-bound-handoff", "io-bound-handoff"]


def test_what_the_end_hung_on_decides_if_it_is_a_tenth_of_the_time() -> None:
    """All lost more to contention, the end hung on a convoy: the former decides where that hardly hung on anything."""
    base = process(*made.convoy())
    found = []
    for by in AROUND:
        ns = np.zeros((len(base.waits), len(Cause)), np.int64)
        ns[0, Cause.CONVOY], ns[1, Cause.CONTENTION] = 100 * MS + by, 500 * MS
        f = with_figures(
            base, costs=Costs(ns, np.where(np.arange(len(ns)) < 1, 1.0, 0.0)), wall=1000 * MS, competed_share=0.5
        )
        found.append(verdict.judge(base, f).kind)
    assert found == ["cpu-bound-contention", "convoy", "convoy"]


def test_causes_of_less_than_a_hundredth_are_left_out() -> None:
    base = process(*made.cpu_bound())
    found = []
    for by in AROUND:
        ns = np.zeros((len(base.waits), len(Cause)), np.int64)
        ns[0, Cause.CONTENTION], ns[1, Cause.HOG] = 99 * MS - by, MS + by
        f = with_figures(base, costs=Costs(ns, np.zeros(len(base.waits))))
        found.append([one.cause for one in find_findings(base, f)])
    assert LEAST_SHARE == 0.01
    assert found == [["contention"], ["contention", "hog"], ["contention", "hog"]]


def changing(*parts: tuple[bool, int]) -> list[str]:
    """The kinds of the phases of a process that counts (True) or sleeps for so many ms each."""
    script, kernel, at = Script().hold(0, 10 * US, 0), Kernel().run(0, 15 * US, PID), 100 * US
    for counts, ms in parts:
        fill = test_phases.counting if counts else test_phases.sleeping
        at = fill(script, kernel, at + 100 * US, at + ms * MS)
    whole = timeline(script, kernel.ended(at, PID).ended(at, 101).ended(at, 102))
    return [one.verdict.kind for one in find_phases(whole.processes[0], whole)]


@pytest.mark.parametrize(("number", "found"), [(3, True), (4, True), (5, False)])
def test_what_changes_more_than_three_times_is_of_one_character(number: int, found: bool) -> None:
    kinds = changing(*((at % 2 == 0, 400) for at in range(number)))
    assert len(kinds) == (number if found else 0)


@pytest.mark.parametrize(("by", "found"), [(-1e-9, False), (0.0, True), (1e-9, True)])
def test_neighbours_are_of_two_characters_from_three_tenths_on(by: float, found: bool) -> None:
    """In shares of time that a GIL was held, that somebody waited, and that threads ran off it, summed."""
    quiet, busy = [0.0, 0.0, 0.0], [phases.DIFFERENT + by, 0.0, 0.0]
    assert phases.cuts(np.array([quiet, busy])) == ([0, 1, 2] if found else [0, 2])


@pytest.mark.parametrize(("pieces", "found"), [(4, False), (5, True), (6, True)])
def test_a_phase_lasts_for_a_twentieth_of_the_time(pieces: int, found: bool) -> None:
    quiet, busy = [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]
    character = np.array([quiet] * 50 + [busy] * pieces + [quiet] * (50 - pieces))
    assert phases.cuts(character) == ([0, 50, 50 + pieces, 100] if found else [0, 100])

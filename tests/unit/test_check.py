"""`giltrace check`: each rule's figure, where it was found, and what cannot be checked."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer

from giltrace.analysis.compare.check import Outcome, Rule, check
from giltrace.analysis.compare.compare import compare
from giltrace.analysis.compare.limits import LIMITS
from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.selection import Selection, select
from giltrace.cli.values import parse_duration, parse_length, parse_share
from giltrace.errors import UsageError
from giltrace.reports.check import json as json_of
from giltrace.reports.check import text
from giltrace.reports.check.checked import Checked
from giltrace.timeline.model import Process, Timeline
from tests.unit.gil_events import MS, PID, US, Script, timeline
from tests.unit.lock_scenes import STACKS, TURN, taking_turns
from tests.unit.test_summary_verdict import convoy, cpu_bound, hog


def waits_of(*lengths: int, tids: tuple[int, ...] = (PID, 101)) -> Timeline:
    """Thread 1 waits so long for each of its holds of 10 ns, thread 0 holds meanwhile."""
    script, at = Script(tids=tids), 0
    for length in lengths:
        script.acquire(at, 0).release(at + length + 10, 0)
        script.hold(at + length + 10, at + length + 20, 1, asked=at + 10)
        at += length + 100
    return timeline(script, end=at)


def one(rule: str, limit: float | tuple[str, ...], built: Timeline, **asked: Any) -> Outcome:
    (part,) = select([built], Selection.of(**asked))
    (outcome,) = check(part, [Rule(rule, limit)]).outcomes
    return outcome


@pytest.mark.parametrize(("limit", "passed"), [(299, False), (300, True), (301, True)])
def test_a_figure_may_reach_its_limit(limit: int, passed: bool) -> None:
    outcome = one("max-wait", limit, waits_of(100, 300, 200))
    assert (outcome.measured, outcome.passed, outcome.where) == (300, passed, "thread-1")


def test_the_verdict_is_the_reports_own_which_reads_the_source(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text("for task in iter(tasks.get, None):")
    scene = taking_turns()
    scene.stacks = {**STACKS, "take": [("take", str(app), 1)]}
    process = scene.process(20 * TURN + 100 * US)
    unread = replace(timeline(Script().hold(0, 1, 0)), processes=(process,))
    read = replace(unread, realtime_offset=app.stat().st_mtime_ns + 1)
    assert judge(process).kind == "lock-bound"
    assert [one("verdict-not", ("lock-bound",), built).passed for built in (unread, read)] == [False, True]
    sides = compare(unread, read)
    assert sides.before.verdicts == ("lock-bound",) != sides.after.verdicts


def test_the_percentile_is_nearest_rank_over_the_role() -> None:
    assert one("max-wait-p99", 0, waits_of(*range(1, 101))).measured == 99
    assert one("max-wait-p99", 0, waits_of(*range(1, 102))).measured == 100
    assert one("max-wait-p99", 0, waits_of(5)).measured == 5


def test_waits_and_shares_are_pooled_per_role() -> None:
    built = timeline(*cpu_bound())
    outcome = one("max-wait-share", 0.2, built)
    waits = built.processes[0].waits
    assert outcome.where == "thread-*"
    assert outcome.measured == pytest.approx(
        (waits["end"] - waits["start"]).sum() / sum(t.end - t.start for t in built.processes[0].threads)
    )


def test_threads_can_be_picked_by_name_or_role() -> None:
    built = timeline(*convoy())
    everyone = one("max-wait", 0, built)
    alone = one("max-wait", 0, built, thread="thread-1")
    assert everyone.where == "thread-2"
    assert alone.where == "thread-1"
    assert isinstance(alone.measured, int | float)
    assert isinstance(everyone.measured, int | float)
    assert 0 < alone.measured < everyone.measured
    assert one("max-wait", 0, built, role="thread-[*]") == everyone
    assert one("max-wait-share", 0, built, thread="thread-2").measured == pytest.approx(0.83, abs=0.03)


def test_hold_and_overstay() -> None:
    built = timeline(*hog())
    hold, over = one("max-hold", 299 * MS, built), one("max-overstay", 250 * MS, built)
    assert (hold.measured, hold.where, hold.passed) == (300 * MS, "thread-1", False)
    # Asked for after 1 ms, a switch interval later for the first time.
    assert (over.measured, over.where, over.passed) == (294 * MS, "thread-1", False)
    assert one("max-overstay", 0, built, thread="thread-2").passed


def test_verdicts() -> None:
    built = timeline(*convoy())
    assert one("verdict", ("convoy",), built).passed
    assert one("verdict", ("hog", "convoy"), built).passed
    assert not one("verdict", ("hog",), built).passed
    assert one("verdict-not", ("hog",), built).passed
    failed = one("verdict-not", ("convoy",), built)
    assert (failed.passed, failed.measured, failed.where) == (False, "convoy", f"process {PID}")


def test_of_several_processes_the_worst_counts_and_is_named() -> None:
    quiet, loud = Script(pid=7, tids=(7,)).hold(0, 10, 0), Script().hold(0, 50, 0).hold(60, 90, 1, asked=20)
    built = timeline([quiet.events(), loud.events()], end=100)
    assert one("max-hold", 1, built).where == f"thread-0, process {PID}"
    assert one("max-hold", 10, built, process="7").passed
    assert not one("max-hold", 10, built, process="python*").passed


def test_lost_events_count_and_are_told() -> None:
    built = timeline([Script().hold(0, 10, 0).events(lost=3)], end=20)
    result = check(built, [Rule("max-lost", 2), Rule("max-hold", 10)])
    assert [outcome.passed for outcome in result.outcomes] == [False, True]
    told = list(text.lines([Checked("x", result)]))
    assert len(told) == 3
    assert told[0] == "FAIL max-lost: 3 > 2 (the recording)"
    assert told[2].startswith("note: 3 events were lost")


@pytest.mark.parametrize("rule", list(LIMITS))
def test_what_was_not_measured_does_not_pass(rule: str) -> None:
    outcome = one(rule, 1, timeline(Script(note="no GIL seen"), end=100))
    assert (outcome.passed, outcome.measured, outcome.where) == (False, None, "no GIL seen")


@pytest.mark.parametrize("rule", list(LIMITS))
def test_without_a_gil_nobody_waits(rule: str) -> None:
    outcome = one(rule, 0, timeline(Script(python="3.14.0 free-threading build"), end=100))
    assert (outcome.passed, outcome.measured) == (True, 0)


def test_figures_are_made_once_and_of_what_asks_for_them_only(monkeypatch: pytest.MonkeyPatch) -> None:
    made, init = list[int](), Figures.__init__

    def counted(self: Figures, process: Process, before: int = 0) -> None:
        made.append(process.pid)
        init(self, process, before)

    monkeypatch.setattr(Figures, "__init__", counted)
    assert check(waits_of(100), [Rule(name, 1000 * MS) for name in LIMITS]).passed
    assert made == []
    assert not check(waits_of(100), [Rule("max-wait", 10), Rule("max-hold", 1)]).passed
    assert len(made) == 1
    free = timeline(Script(python="3.14.0 free-threading build"), end=100)
    assert check(free, [*(Rule(name, 0) for name in LIMITS), Rule("verdict", ("free-threaded",))]).passed
    assert len(made) == 2


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([], "nothing to check"),
        ([Rule("max-nap", 1)], "no rule 'max-nap'"),
        ([Rule("verdict", ("slow",))], "no verdict 'slow'"),
    ],
)
def test_what_cannot_be_checked(rules: list[Rule], said: str) -> None:
    with pytest.raises(UsageError, match=said) as raised:
        check(waits_of(10), rules)
    assert raised.value.remedy


def test_a_line_shows_the_difference_that_rounding_hides() -> None:
    result = check(waits_of(10_000_001), [Rule("max-wait", 10_000_000)])
    told = list(text.lines([Checked("x", result)]))
    assert told == ["FAIL max-wait: 10000001 ns > 10000000 ns (thread-1), by thread-*"]


def test_json_repeats_the_outcomes() -> None:
    result = check(waits_of(10), [Rule("max-wait", 20), Rule("verdict-not", ("convoy",))])
    told = json.loads("".join(json_of.lines([Checked("x.giltrace", result)])))
    assert (told["schema"], told["passed"], told["recording"]) == ("giltrace-check-1", True, "x.giltrace")
    assert told["rules"][0] == {
        "rule": "max-wait", "passed": True, "measured": 10, "limit": 20, "unit": "ns", "where": "thread-1",
        "culprit": None, "recording": "x.giltrace",
    }  # fmt: skip
    assert told["rules"][1]["limit"] == ["convoy"]


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("10ms", 10 * MS),
        ("5us", 5000),
        ("5µs", 5000),
        ("1.5s", 1500 * MS),
        (" 3 ns ", 3),
        (".5ms", 500_000),
        ("2m", 120_000 * MS),
    ],
)
def test_durations_are_read(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


def test_a_mere_number_of_how_long_to_look_is_seconds() -> None:
    assert parse_length("3") == parse_duration("3", unit="s") == 3000 * MS
    assert parse_length("20ms") == 20 * MS
    with pytest.raises(typer.BadParameter, match="no time to look"):
        parse_length("0")


@pytest.mark.parametrize(("text", "share"), [("20%", 0.2), ("0.2", 0.2), ("100 %", 1.0), ("0", 0.0), ("1", 1.0)])
def test_shares_are_read(text: str, share: float) -> None:
    assert parse_share(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["", "10", "-5ms", "ms", "1e3ms", "5 min", "1,5s"])
def test_wrong_durations_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", "20", "101%", "-1%", "x", "%"])
def test_wrong_shares_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="no share"):
        parse_share(text)

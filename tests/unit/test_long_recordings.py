"""What the commands do with a recording so long that quiet holds are added up for it."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest

import giltrace
from giltrace.analysis.selection import Selection, narrow, with_every_hold
from giltrace.cli.outcome import show
from giltrace.timeline.gathered import as_they_are
from giltrace.timeline.load import load
from giltrace.views.subject import Subject
from giltrace.views.trace_file import thinned
from giltrace.views.trace_processor import unavailable
from tests.unit.in_process import run
from traces.regenerate import unpack

TOLD = re.compile(r"trace thinned: [\d,]+ of 1,296 holds as they are; elsewhere quiet ones in a row as one")
REMARK = "quiet holds that came one after the other were added up"


@pytest.fixture
def recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("giltrace.timeline.load.MOST_BYTES", 0)
    return unpack("sqlite_threads", tmp_path)


def test_a_short_one_is_told_of_every_hold(tmp_path: Path) -> None:
    whole = load(unpack("sqlite_threads", tmp_path), gathered=None)
    assert as_they_are(whole) == (1296, 1296)
    assert not any(REMARK in remark for remark in whole.remarks)


def test_the_report_says_that_it_was_added_up_and_counts_every_hold(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("report", recording, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert sum(thread["holds"] for process in told["processes"] for thread in process["threads"]) == 1296
    assert run("report", recording) == 0
    assert REMARK in " ".join(capsys.readouterr().out.split())


def test_a_trace_says_it_and_has_all_that_somebody_waited_for(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = recording.with_suffix(".pftrace")
    show(recording, trace)
    said = " ".join(capsys.readouterr().err.split())
    assert TOLD.search(said)
    assert TOLD.fullmatch(thinned(trace))
    assert b"quiet holds, added up" in trace.read_bytes()


def test_all_has_every_hold(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = recording.with_suffix(".pftrace")
    assert run("export", recording, "--to", "perfetto", "-f") == 0
    small = trace.stat().st_size
    assert TOLD.search(capsys.readouterr().err)
    assert run("export", recording, "--to", "perfetto", "--all", "-f") == 0
    assert "thinned" not in capsys.readouterr().err
    assert thinned(trace) == ""
    assert trace.stat().st_size > small + 1_000 * 50


def test_tables_have_every_hold(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("export", recording, "--to", "csv", "--table", "holds", "-o", "-") == 0
    assert len(list(csv.reader(io.StringIO(capsys.readouterr().out)))) == 1 + 1296


def test_a_part_that_is_cut_out_has_every_hold(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cut = recording.with_name("part.pftrace")
    assert run("export", recording, "--to", "perfetto", "--window", "0..10s", "-o", cut) == 0
    assert "thinned" not in capsys.readouterr().err
    assert b"quiet holds, added up" not in cut.read_bytes()


@pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
def test_a_query_is_of_every_hold(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(recording, recording.with_suffix(".pftrace"))
    capsys.readouterr()
    for part in ((), ("--window", "0..10s")):
        assert run("query", recording, "select count() as n from gil_holds", "--json", *part) == 0
        assert json.loads(capsys.readouterr().out) == [{"n": 1296}]


def test_a_query_that_cannot_be_answered_is_refused_by_the_number_of_all(
    recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("giltrace.views.subject._LARGEST", 1296 * 120 - 1)
    assert run("query", recording, "select 1") == 2
    assert "more than SQL can be asked of" in capsys.readouterr().err


def test_a_view_is_of_what_a_browser_can_hold_and_of_all_if_asked_to(recording: Path) -> None:
    subject = Subject.find(recording)
    with subject.as_trace() as shown:
        assert TOLD.fullmatch(thinned(shown))
    with subject.as_trace(whole=True) as shown:
        assert thinned(shown) == ""


def test_python_has_every_hold_and_reports_of_sums(recording: Path) -> None:
    loaded = giltrace.load(recording)
    assert repr(loaded).endswith(": 1 process, 1296 holds>")
    report, summary = loaded.report(), loaded.summary()
    assert any(REMARK in remark for remark in report.quality.remarks)
    assert any(REMARK in remark for remark in summary.quality.remarks)
    assert not any(REMARK in remark for remark in loaded.select(window="0..10s").summary().quality.remarks)
    assert "timeline" not in vars(loaded)
    for part in (loaded, loaded.select(window="0..10s")):
        assert len(part.holds) == 1296
        assert sum(thread.holds for process in part.report().processes for thread in process.threads) == 1296


def test_limits_are_held_against_every_hold(
    recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = []
    for most in (0, 1 << 40):
        monkeypatch.setattr("giltrace.timeline.load.MOST_BYTES", most)
        for thread in ("sql-0", "MainThread"):
            limits = ("--max-hold", "1ns", "--max-wait", "1ns", "--max-wait-p99", "1ns", "--thread", thread)
            assert run("check", recording, *limits, "--json") == 1
            told.append(json.loads(capsys.readouterr().out))
    assert told[:2] == told[2:]
    assert told[0] != told[1]


def told_of_both(
    words: tuple[object, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """What a command says on stdout of a recording that is long, and if it is not."""
    told = []
    for most in (0, 1 << 40):
        monkeypatch.setattr("giltrace.timeline.load.MOST_BYTES", most)
        assert run(*words) == 0
        told.append(capsys.readouterr().out)
    return told


@pytest.mark.parametrize("window", ["0.1..0.2", "0.3..10"])
def test_a_window_has_every_hold_in_it(
    recording: Path, window: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    part = with_every_hold(load(recording, gathered=None), recording, Selection.of(window=window), every=True)
    assert 0 < len(part.processes[0].gathered) < len(load(recording, gathered=True).processes[0].gathered)
    for what in (("--to", "csv", "--table", "states"), ("--to", "csv", "--table", "holds")):
        found, expected = told_of_both(("export", recording, *what, "--window", window, "-o", "-"), capsys, monkeypatch)
        rows = [list(csv.DictReader(io.StringIO(told))) for told in (found, expected)]
        # Numbers of holds count those before the window.
        kept = [[{k: v for k, v in row.items() if k not in ("hold", "hold_id")} for row in one] for one in rows]
        assert kept[0] == kept[1]
        assert len(rows[0]) > 10


def test_a_report_on_a_window_is_that_of_every_hold_in_it(
    recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("report", recording, "--window", "0.1..0.2", "--json")
    found, expected = (json.loads(told) for told in told_of_both(words, capsys, monkeypatch))
    for report in (found, expected):
        del report["quality"]["remarks"]
    assert found == expected


def test_a_trace_of_the_longest_waits_counts_the_holds_that_it_leaves_out(
    recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_out = []
    for most in (0, 1 << 40):
        monkeypatch.setattr("giltrace.timeline.load.MOST_BYTES", most)
        cut = narrow(
            with_every_hold(load(recording, gathered=None), recording, Selection.of(window="0.1..0.2"), every=True),
            Selection.of(window="0.1..0.2"),
        )
        assert cut.cut is not None
        left_out.append(cut.cut.holds + as_they_are(cut)[1])
    assert left_out == [1296, 1296]


def test_a_part_of_a_part_stays_a_part(recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for most in (0, 1 << 40):
        monkeypatch.setattr("giltrace.timeline.load.MOST_BYTES", most)
        part = giltrace.load(recording).select(thread="sql-0").select(window="0.1..0.3")
        found.append((part.holds.tolist(), [thread.name for thread in part.summary().processes[0].threads]))
    assert found[0] == found[1]
    assert found[0][1] == ["sql-0"]

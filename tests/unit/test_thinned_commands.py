"""What the commands do with a trace that would be too large, and what an end in the middle of one leaves."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from giltrace.cli.outcome import show
from giltrace.errors import OutputError
from giltrace.exporters.perfetto import thinning
from giltrace.exporters.perfetto import trace as perfetto
from giltrace.timeline.load import load
from giltrace.views.subject import Subject
from giltrace.views.trace_file import thinned
from giltrace.views.trace_processor import unavailable
from tests.unit.in_process import run
from traces.regenerate import unpack

LIMIT = 30_000
TOLD = re.compile(r"trace thinned: [\d,]+ of [\d,]+ holds as they are.*; elsewhere in steps of ")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """No trace gets larger than `LIMIT`."""
    monkeypatch.setattr(thinning, "LIMIT", LIMIT)
    monkeypatch.setattr(perfetto, "write", partial(perfetto.write, limit=LIMIT))
    monkeypatch.setattr(perfetto, "stream", partial(perfetto.stream, limit=LIMIT))


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return unpack("convoy", tmp_path)


def whole_size(recording: Path) -> int:
    file = io.BytesIO()
    perfetto.stream(load(recording), file, limit=None)
    return len(file.getvalue())


@pytest.mark.usefixtures("small")
def test_record_says_what_is_thinned_and_how_to_have_it_all(
    recording: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = recording.with_suffix(".pftrace")
    show(recording, trace)
    told = capsys.readouterr().err
    assert TOLD.search(told)
    assert f"export {recording.with_suffix('')} --to perfetto --all writes everything" in told
    assert TOLD.match(thinned(trace))
    assert thinned(trace) in told
    assert trace.stat().st_size <= LIMIT


def test_a_trace_that_fits_says_nothing(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = recording.with_suffix(".pftrace")
    show(recording, trace)
    assert "thinned" not in capsys.readouterr().err
    assert thinned(trace) == ""
    assert trace.stat().st_size == whole_size(recording)


def test_without_room_for_the_trace_the_rest_is_told(recording: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = recording / "meta.json" / "it.pftrace"  # below a file nothing can be written
    show(recording, trace)
    told = capsys.readouterr().err
    assert "Convoy: " in told
    assert f"trace     none: cannot write {trace}: " in told
    assert f"export {recording.with_suffix('')} --to perfetto -o ELSEWHERE" in told


def test_a_trace_that_was_not_written_is_not_the_one_from_before(
    recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> str:
        raise OutputError("cannot write it: No space left on device", "free some space")

    trace = recording.with_suffix(".pftrace")
    trace.write_bytes(b"of the recording that was replaced")
    monkeypatch.setattr("giltrace.exporters.perfetto.trace.write", full)
    show(recording, trace)
    assert "trace     none: cannot write it: " in capsys.readouterr().err
    assert not trace.exists()


@pytest.mark.usefixtures("small")
def test_export_thins_unless_all_is_asked_for(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = whole_size(recording)
    path = tmp_path / "x.pftrace"
    for words, expected in (([], False), (["--all"], True), (["--window", "0..100"], True)):
        assert run("export", recording, "--to", "perfetto", "-o", path, "-f", *words) == 0
        told = capsys.readouterr().err
        assert bool(TOLD.search(told)) != expected
        assert ("--all writes everything" in told) != expected
        assert (path.stat().st_size >= size) == expected
    assert run("export", recording, "--to", "csv", "--all", "-o", tmp_path / "y") == 2
    assert "--all is not for csv" in capsys.readouterr().err


@pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
@pytest.mark.usefixtures("small")
def test_a_query_is_of_the_whole_recording_or_says_what_it_is_of(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = recording.with_suffix(".pftrace")
    show(recording, trace)
    alone = tmp_path / "alone.pftrace"
    alone.write_bytes(trace.read_bytes())
    capsys.readouterr()
    counted = {}
    for name in (recording, trace, alone):
        assert run("query", name, "select count() as n from gil_holds", "--json") == 0
        said = capsys.readouterr()
        counted[name] = json.loads(said.out)[0]["n"]
        assert bool(TOLD.search(said.err)) == (name == alone)
    every = sum(len(process.holds) for process in load(recording).processes)
    assert counted[recording] == counted[trace] == every > counted[alone]


def test_a_query_that_cannot_be_answered_is_refused_before_anything_is_written(
    recording: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("giltrace.views.subject._LARGEST", 1000)
    monkeypatch.setattr(perfetto, "write", None)
    assert run("query", recording, "select 1") == 2
    told = capsys.readouterr().err
    assert "more than SQL can be asked of" in told
    assert "--window A..B" in told
    assert "--engine duckdb" in told


@pytest.mark.usefixtures("small")
def test_a_view_is_of_what_a_browser_can_hold_and_of_what_is_asked_for(recording: Path) -> None:
    subject = Subject.find(recording)
    with subject.as_trace() as shown:
        assert TOLD.match(thinned(shown))
    with subject.as_trace(whole=True) as shown:
        assert (thinned(shown), shown.stat().st_size) == ("", whole_size(recording))
    # The trace that is there has it all, and is too large.
    trace = recording.with_suffix(".pftrace")
    assert run("export", recording, "--to", "perfetto", "--all") == 0
    subject = Subject.find(recording)
    assert subject.trace == trace
    with subject.as_trace() as shown:
        assert TOLD.match(thinned(shown))
    with subject.as_trace(whole=True) as shown:
        assert shown == trace


#: Begins to write the trace of a recording, says so, and never ends by itself.
WRITING = """
import sys
from pathlib import Path
from giltrace.cli import outcome
from giltrace.exporters._output import output_file
from giltrace.exporters.perfetto import trace

def write(timeline, path):
    with output_file(path) as file:
        file.write(b"x" * 5_000_000)
        print("writing", flush=True)
        sys.stdin.read()

trace.write = write
import typer
try:
    outcome.show(Path(sys.argv[1]), Path(sys.argv[2]))
except typer.Exit as ended:
    sys.exit(ended.exit_code)
"""


def ended_while_writing(recording: Path, end: Callable[[subprocess.Popen[str]], None]) -> tuple[int, str]:
    command = [sys.executable, "-c", WRITING, str(recording), str(recording.with_suffix(".pftrace"))]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        end(process)
        _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_end_while_the_trace_is_written_leaves_the_recording_alone(recording: Path, ending: signal.Signals) -> None:
    before = {*recording.parent.iterdir()}
    status, errors = ended_while_writing(recording, lambda process: process.send_signal(ending))
    assert status == 128 + ending
    assert f"the recording {recording} is complete" in errors
    assert "Traceback" not in errors
    assert {*recording.parent.iterdir()} == before


def test_not_even_a_kill_leaves_half_a_trace_behind(recording: Path) -> None:
    try:
        os.close(os.open(recording, os.O_TMPFILE | os.O_WRONLY))
    except OSError:
        pytest.skip("this file system has no files without a name")
    before = {*recording.parent.iterdir()}
    status, _ = ended_while_writing(recording, lambda process: process.kill())
    assert status == -signal.SIGKILL
    assert {*recording.parent.iterdir()} == before

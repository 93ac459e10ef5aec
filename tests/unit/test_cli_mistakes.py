"""What a person gets wrong on the command line is told in one way: the cause, the remedy, and status 2."""

from __future__ import annotations

import gzip
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from giltrace.cli import app
from giltrace.views.trace_file import check_whole
from traces.regenerate import unpack

SAMPLES = Path(__file__).resolve().parents[2] / "traces"
TRACE = gzip.decompress((SAMPLES / "single.pftrace.gz").read_bytes())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the recording single.giltrace in it."""
    unpack("single", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def status(*words: str) -> object:
    with pytest.raises(SystemExit) as ended:
        app.main(words)
    return ended.value.code


def test_a_page_on_stdout_is_a_page(folder: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert status("report", "single", "--html", "-") == 0
    out, err = capsysbinary.readouterr()
    assert out.lstrip().lower().startswith(b"<!doctype html>")
    assert out.rstrip().endswith(b"</html>")
    assert err == b""
    assert [path.name for path in folder.iterdir()] == ["single.giltrace"]


def test_a_page_that_is_there_stays_without_force(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = folder / "page.html"
    page.write_text("mine")
    assert status("report", "single", "--html", "page.html") == 2
    assert page.read_text() == "mine"
    assert capsys.readouterr().err == (
        "giltrace: error: page.html exists\n  choose another name with --html, or replace it with --force\n"
    )
    assert status("report", "single", "--html", "page.html", "--force") == 0
    assert page.read_text() != "mine"


def test_two_reports_cannot_share_stdout(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("report", "single", "--html", "-", "--json") == 2
    out, err = capsys.readouterr()
    assert (out, "--html - and --json both print on stdout" in err) == ("", True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("record", "--without", "perf", "-o", "single", "-c", "pass"), "no collector is called perf"),
        (("record", "--spans", "--without", "viztracer", "-c", "pass"), "viztracer is asked for and left out"),
        (("record", "--ring", "1MiB", "--with", "py-spy", "-c", "pass"), "--ring cannot go with py-spy"),
        (("record", "--ring", "1kB", "-o", "single", "-c", "pass"), "a ring of 1kB is too small"),
        (("record", "--dump-on", "USR1", "-o", "single", "-c", "pass"), "--dump-on needs a ring"),
        (("attach", "999999999", "--without", "perf", "-o", "single"), "no collector is called perf"),
        (("attach", "--observe", "999999999", "--stacks", "full", "-o", "single"), "that --stacks could be for"),
        (("attach", "--observe", "999999999", "--allow-seccomp", "-o", "single"), "that --allow-seccomp could be for"),
        (("attach", "999999999", "--without", "gil", "-o", "single"), "is what attaching records"),
        (("export", "single", "--to", "perfetto", "--window", "2s..1s"), "ends before it begins"),
        (("export", "single", "--to", "csv", "-o", "single.pftrace", "--top-waits", "1"), "--top-waits is not for csv"),
        (("export", "single", "--to", "perfetto", "--thread", "io-*"), "a trace has all threads"),
        (("export", "single", "--to", "csv", "-o", "single.pftrace", "--own", "."), "--own is not for export"),
        (("record", "-o", "single", "-c", "pass"), "single.pftrace exists"),
        (("attach", "999999999", "-o", "single"), "single.pftrace exists"),
        (("export", "single", "--to", "perfetto"), "single.pftrace exists"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_a_bad_option_is_told_before_a_name_that_is_taken(
    words: tuple[str, ...], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "single.pftrace").write_text("mine")
    assert status(*words) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert (folder / "single.pftrace").read_text() == "mine"


def test_observing_is_announced_only_once_it_is_possible(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        assert status("attach", "--observe", str(other.pid)) == 2
        other.kill()
    told = capsys.readouterr().err
    assert told.startswith("giltrace: error: ")
    assert "is not a CPython" in told


@pytest.mark.parametrize("command", [("view", "--print-url"), ("query", "select 1")], ids=lambda words: words[0])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "alone.pftrace is empty"),
        (b"nonsense" * 100, "alone.pftrace is no Perfetto trace"),
        (TRACE + b"x", "alone.pftrace is no Perfetto trace"),
        (TRACE[:-1], "alone.pftrace is cut off"),
        (TRACE + b"\x0a", "alone.pftrace is cut off"),
        (TRACE + b"\x0a" + b"\xff" * 20, "alone.pftrace is cut off"),
        (None, "cannot read alone.pftrace: "),
    ],
    ids=["empty", "nonsense", "more than packets", "cut off", "no length", "endless length", "refused"],
)
def test_what_is_no_trace_is_told_with_a_remedy(
    command: tuple[str, str],
    content: bytes | None,
    said: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trace = folder / "alone.pftrace"
    trace.write_bytes(content or b"")
    if content is None:  # for root may read everything
        monkeypatch.setattr(Path, "open", denied)
    assert status(command[0], "alone.pftrace", command[1]) == 2
    first, remedy = capsys.readouterr().err.splitlines()
    assert first.startswith(f"giltrace: error: {said}")
    assert remedy.startswith("  ")


def denied(*_: object, **__: object) -> None:
    raise PermissionError(13, "Permission denied")


def test_a_whole_trace_passes(folder: Path) -> None:
    (folder / "alone.pftrace").write_bytes(TRACE)
    check_whole(folder / "alone.pftrace")


@pytest.mark.parametrize(("module", "function"), [(Path, "is_dir"), (os, "open"), (os, "pread"), (os, "listdir")])
def test_a_recording_that_may_not_be_read_is_an_expected_error(
    module: Any, function: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, function, denied)
    assert status("report", "single") == 2
    assert "Permission denied" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("query", "shut/x.pftrace", "select 1"), "cannot read shut/x.pftrace: Permission denied"),
        (("record", "-o", "shut/x", "-c", "pass"), "cannot look at shut/x.pftrace: Permission denied"),
        (("record", "--force", "-o", "shut/x", "-c", "pass"), "cannot look at shut/x.pftrace: Permission denied"),
        (("report", "single", "--html", "shut/x.html"), "cannot look at shut/x.html: Permission denied"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, tuple) else "",
)
def test_a_place_that_may_not_be_looked_at_is_an_expected_error(
    words: tuple[str, ...],
    said: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real = os.stat

    def stat(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        if str(path).startswith("shut/"):  # for root may look anywhere
            raise PermissionError(13, "Permission denied")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", stat)
    assert status(*words) == 2
    assert said in capsys.readouterr().err


def test_there_is_nothing_to_view_in_an_empty_recording(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in folder.glob("single.giltrace/*-*"):
        file.unlink()
    assert status("view", "single", "--print-url") == 2
    assert "single.giltrace is empty: no use of a GIL and no core switch is on record" in capsys.readouterr().err

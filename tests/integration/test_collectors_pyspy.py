"""The py-spy collector on real programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from giltrace.collectors import _perf
from giltrace.collectors._pyspy_process import PySpyProcess
from giltrace.collectors.base import Collector, Session
from giltrace.collectors.pyspy import PySpyCollector
from giltrace.collectors.sched import SchedCollector
from giltrace.launch.child import Child
from giltrace.recording.events import Spans
from giltrace.recording.spans import read_spans
from tests.collecting import check_nesting, record
from tests.interpreters import Interpreter

TARGETS = Path(__file__).parent.parent / "targets"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "x.giltrace"
    path.mkdir()
    return path


def until_sampled(folder: Path) -> Callable[[int], None]:
    """Return what ends the program's input once py-spy has taken some dozens of samples of it."""
    ours, theirs = os.pipe()
    saved = os.dup(0)
    os.dup2(ours, 0)
    os.close(ours)
    polls = 0

    def end() -> None:
        os.dup2(saved, 0)
        os.close(saved)
        os.close(theirs)

    def meanwhile(pid: int) -> None:
        nonlocal polls
        log = folder / f"py-spy-{pid}-0-0.log"
        if polls >= 0 and log.exists() and "Sampling" in log.read_text():
            polls += 1
        if polls > 40:
            polls = -1
            end()

    return meanwhile


def read_log(path: Path) -> dict[int, list[tuple[int, int]]]:
    rests: dict[int, list[tuple[int, int]]] = {}
    for line in path.read_text().splitlines():
        tid, begin, end = map(int, line.split())
        rests.setdefault(tid, []).append((begin, end))
    return rests


def check_rests(spans: Spans, rests: dict[int, list[tuple[int, int]]]) -> int:
    """Count the sampled `rest`s; they begin while their thread was in one.

    py-spy notes the time a little after it has looked, and now and then, under load, much later.
    """
    slack = spans.clock_error_ns + 3_000_000
    right = [
        any(begin - spans.clock_error_ns <= start <= end + slack for begin, end in rests[tid])
        for start, _, tid, name, _ in spans.spans.tolist()
        if spans.names[name].startswith("rest (")
    ]
    assert sum(right) >= 0.8 * len(right)
    return len(right)


@pytest.mark.parametrize("with_sched", [True, False])
def test_pyspy_agrees_with_the_programs_own_log(folder: Path, tmp_path: Path, with_sched: bool) -> None:
    collectors: list[Collector] = [PySpyCollector()]
    if with_sched:
        collectors.insert(0, SchedCollector())
    argv = [sys.executable, TARGETS / "phases.py", tmp_path / "log"]
    _, reports = record(folder, collectors, argv, until_sampled(folder))
    (spans,) = read_spans(folder)
    rests = read_log(tmp_path / "log")
    assert (reports[-1].status, spans.sampled) == ("ok", True)  # on a busy machine it comes late, and counts that
    assert set(spans.spans["tid"].tolist()) == rests.keys()
    assert check_rests(spans, rests) > 5
    check_nesting(spans)
    assert reports[-1].clock_error_ns == spans.clock_error_ns
    assert {path.suffix for path in folder.glob("py-spy*")} == {".npz"}


def test_pyspy_finds_the_kernels_thread_ids(folder: Path, tmp_path: Path, interpreter: Interpreter) -> None:
    if interpreter.version >= (3, 15):
        pytest.skip("py-spy does not know this version")
    argv = [interpreter.path, TARGETS / "phases.py", tmp_path / "log"]
    _, (report,) = record(folder, [PySpyCollector()], argv, until_sampled(folder))
    (spans,) = read_spans(folder)
    rests = read_log(tmp_path / "log")
    assert report.status == "ok"
    assert set(spans.spans["tid"].tolist()) == rests.keys()
    assert check_rests(spans, rests) > 5


def test_pyspy_without_perf_knows_its_clock_less_well(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **more: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(_perf, "open_switches", refuse)
    argv = [sys.executable, TARGETS / "phases.py", tmp_path / "log"]
    record(folder, [PySpyCollector()], argv, until_sampled(folder))
    (spans,) = read_spans(folder)
    assert spans.clock_error_ns > 0
    assert check_rests(spans, read_log(tmp_path / "log")) > 5


def test_pyspy_ends_before_the_program_when_the_recording_is_cut_short(folder: Path) -> None:
    collector = PySpyCollector()
    child = Child([sys.executable, "-c", "while True: pass"], dict(os.environ))
    collector.start(Session(folder, child.pid, None))
    child.release()
    log, polls = folder / f"py-spy-{child.pid}-0-0.log", 0
    while polls < 20:
        assert child.wait(0.02) is None
        collector.poll()
        polls += log.exists() and "Sampling" in log.read_text()
    report = collector.stop()
    assert child.wait(0) is None
    os.kill(child.pid, 9)
    assert child.wait(10) == -9
    assert report.status == "ok"
    assert read_spans(folder)[0].spans["tid"].tolist() == [child.pid]


def test_pyspy_says_why_it_has_nothing(folder: Path) -> None:
    _, (report,) = record(folder, [PySpyCollector()], ["/bin/true"])
    assert report.status == "no Python process lived long enough"
    assert list(folder.iterdir()) == []


def test_pyspy_is_interrupted_although_the_recorder_blocks_signals(tmp_path: Path) -> None:
    # Signals that the recorder blocks would be inherited blocked, and the interrupt would never arrive.
    child = Child(["/bin/true"], dict(os.environ))
    try:
        process = PySpyProcess(["/bin/sh", "-c", "kill -INT $$; exit 7", "sh"], child.pid, tmp_path / "x")
        while process.running:
            pass
    finally:
        child.cancel()
    assert process.status == -2

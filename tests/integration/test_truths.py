"""Each bundled workload, recorded from the command line, shows what its header says it must."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from giltrace.analysis.findings.event_loops import find_event_loops
from giltrace.analysis.report import analyse
from giltrace.launch.bundled import bundled, header
from giltrace.timeline.load import load
from giltrace.timeline.model import Timeline
from tests.interpreters import Interpreter, has, interpreters
from tests.truth import broken, truths


def record(name: str, folder: Path, *options: str) -> Timeline:
    output = folder / name
    command = [sys.executable, "-m", "giltrace", "record", *options, "-o", str(output), name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{name}: ")
    return load(output.with_name(f"{name}.giltrace"))


def check(name: str, timeline: Timeline) -> None:
    assert timeline.violations == ()
    assert timeline.lost == 0
    assert broken(truths(bundled()[name]), timeline) == []


def able(name: str) -> list[str]:
    """The options that have a workload run by an interpreter which has what it needs; skips where there is none."""
    needs = header(bundled()[name]).needs
    if not needs:
        return []
    found = sorted(interpreters(), key=lambda one: (not one.free_threaded, one.version), reverse=True)
    for python in (Path(sys.executable), *(one.path for one in found)):
        if has(python, needs):
            return ["--python", str(python)]
    pytest.skip(f"no interpreter has {needs}")


@pytest.mark.parametrize("name", list(bundled()))
def test_workload_shows_its_truth(name: str, tmp_path: Path) -> None:
    check(name, record(name, tmp_path, "--light", *able(name)))


@pytest.mark.parametrize("name", ["cpu_bound", "io_bound"])
def test_truth_holds_under_all_collectors(name: str, tmp_path: Path) -> None:
    check(name, record(name, tmp_path))


@pytest.mark.parametrize(
    "name", ["cpu_bound", "hog", "lock_convoy", "logging_lock", "native_parallel", "subinterpreters"]
)
def test_truth_holds_for_every_interpreter(name: str, interpreter: Interpreter, tmp_path: Path) -> None:
    needs = header(bundled()[name]).needs
    if needs and not has(interpreter.path, needs):
        pytest.skip(f"needs {needs}")
    check(name, record(name, tmp_path, "--light", "--python", str(interpreter.path)))


def test_switch_interval_is_read_off_each_interpreter(interpreter: Interpreter, tmp_path: Path) -> None:
    timeline = record("switch_interval", tmp_path, "--light", "--python", str(interpreter.path))
    stated = [truth for truth in truths(bundled()["switch_interval"]) if truth.metric == "switch_interval_ms"]
    assert len(stated) == 3
    assert broken(stated, timeline) == []


def test_event_loop_finding_names_the_culprit(tmp_path: Path) -> None:
    (process,) = record("asyncio_starved", tmp_path, "--light").processes
    (loop,) = find_event_loops(process)
    assert (loop.thread, loop.loop) == ("loop", "asyncio")
    assert loop.culprit is not None
    assert (loop.culprit.thread, loop.culprit.function) == ("cpu-0", "count")
    assert loop.culprit_ns >= 0.5 * loop.waited_ns


def test_each_process_of_a_pool_is_judged(tmp_path: Path) -> None:
    told = analyse(record("fork_pool", tmp_path, "--light"))
    workers = [process for process in told.processes if process.ppid in {other.pid for other in told.processes}]
    assert [process.verdict.kind for process in workers] == ["single-threaded"] * 2
    assert told.gils_at_once >= 1.2

"""Each bundled workload, recorded from the command line, shows what its header says it must."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from giltrace.launch.bundled import bundled
from giltrace.timeline.load import load
from giltrace.timeline.model import Timeline
from tests.interpreters import Interpreter
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


@pytest.mark.parametrize("name", list(bundled()))
def test_workload_shows_its_truth(name: str, tmp_path: Path) -> None:
    check(name, record(name, tmp_path, "--light"))


@pytest.mark.parametrize("name", ["cpu_bound", "io_bound"])
def test_truth_holds_under_all_collectors(name: str, tmp_path: Path) -> None:
    check(name, record(name, tmp_path))


@pytest.mark.parametrize("name", ["cpu_bound", "hog", "native_parallel"])
def test_truth_holds_for_every_interpreter(name: str, interpreter: Interpreter, tmp_path: Path) -> None:
    check(name, record(name, tmp_path, "--light", "--python", str(interpreter.path)))

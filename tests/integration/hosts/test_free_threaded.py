"""Builds without a GIL: unharmed as they are, and recorded truly once they have one after all."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path

import pytest

from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from giltrace.recording.events import ProcessEvents
from tests import embedding
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, of_kind, overlaps, read, traced_environment

HOSTS = TARGETS / "hosts"


def run(interpreter: Interpreter, folder: Path, *words: Path, **variables: str) -> tuple[str, ProcessEvents]:
    if not interpreter.free_threaded:
        pytest.skip("has a GIL")
    append_pair(folder)
    env = {**traced_environment(folder), "GILTRACE_STACKS": "128", **variables}
    command = [interpreter.path, HOSTS / "free_threaded.py", *words]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    (process,) = read(folder)
    assert (process.lost, overlaps(process.events)) == (0, 0)
    return ran.stdout.strip(), process


def acquires(process: ProcessEvents) -> int:
    return len(of_kind(process.events, layout.Kind.ACQUIRE))


def test_without_a_gil(any_interpreter: Interpreter, tmp_path: Path) -> None:
    said, process = run(any_interpreter, tmp_path)
    assert said == "False"
    assert "free-threading" in process.python


def test_with_the_gil_switched_on_from_the_start(any_interpreter: Interpreter, tmp_path: Path) -> None:
    said, process = run(any_interpreter, tmp_path, PYTHON_GIL="1")
    assert said == "True"
    assert len(process.gils) == 1
    assert acquires(process) > 3


@pytest.mark.needs("cc")
def test_with_the_gil_switched_on_by_an_extension(any_interpreter: Interpreter, tmp_path: Path) -> None:
    if not any_interpreter.free_threaded:
        pytest.skip("has a GIL")
    suffix = sysconfig.get_config_var("SHLIB_SUFFIX")
    module = embedding.extension(any_interpreter, HOSTS / "needs_gil.c", tmp_path / f"needs_gil{suffix}")
    said, process = run(any_interpreter, tmp_path, module.parent)
    assert said == "True"
    assert len(process.gils) == 1
    # Each of three threads, at each of 20 turns.
    assert acquires(process) >= 60

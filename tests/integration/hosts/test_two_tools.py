"""Another tool that uses the same slots as the tracer sees all calls, whichever of the two comes and goes first."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from giltrace import native
from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, of_kind, overlaps, read

HOSTS = TARGETS / "hosts"
SLEEPS = 50


@pytest.mark.needs("cc")
def test_another_tool_in_the_same_slots(interpreter: Interpreter, tmp_path: Path) -> None:
    tool = tmp_path / "tool.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", tool, HOSTS / "other_tool.c", "-ldl"], check=True, timeout=60)
    command = [interpreter.path, HOSTS / "two_tools.py", native.LIBRARY, tool, tmp_path]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "as it was 5\n", "")
    for number in range(5):
        folder = tmp_path / str(number)
        append_pair(folder)
        (process,) = read(folder)
        assert (process.note, process.lost, overlaps(process.events)) == ("", 0, 0)
        assert len(of_kind(process.events, layout.Kind.ACQUIRE)) >= SLEEPS

"""Hosts that switch stacks under Python's feet: nothing beyond a stack's end is looked at, and answers are right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from giltrace.recording.events import ProcessEvents
from tests import embedding
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, of_kind, overlaps, read, traced_environment

HOSTS = TARGETS / "hosts"

#: How often the thread "counts" of fibers.c waits until another had the GIL.
TURNS = 30


def run(command: list[str | Path], folder: Path, **variables: str) -> ProcessEvents:
    append_pair(folder)
    env = {**traced_environment(folder), "GILTRACE_STACKS": "128", **variables}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=100, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    (process,) = read(folder)
    assert (process.note, process.lost, overlaps(process.events)) == ("", 0, 0)
    return process


def forced(process: ProcessEvents, name: str) -> int:
    """How often the GIL was taken from the thread `name`."""
    (thread,) = (i for i, one in enumerate(process.threads) if one.name == name)
    released = of_kind(process.events, layout.Kind.RELEASE)
    return int(np.count_nonzero(released["flags"][released["thread"] == thread] & layout.RecordFlag.FORCED))


@pytest.mark.on_some
@pytest.mark.needs("cc")
@pytest.mark.parametrize("static", [True, False], ids=["static", "shared"])
@pytest.mark.parametrize("begins", ["context", "bare", "lost"])
def test_python_on_stacks_of_the_hosts_own(interpreter: Interpreter, static: bool, begins: str, tmp_path: Path) -> None:
    program = embedding.embedding(interpreter, HOSTS / "fibers.c", tmp_path / "host", static, "-O2")
    home = embedding.environment(interpreter)
    for act in ("counts", "polite"):
        folder = tmp_path / act
        folder.mkdir()
        process = run([program, begins, act], folder, **home)
        if act == "counts":
            assert forced(process, "counts") >= TURNS
            assert forced(process, "spinner") >= TURNS
        else:
            assert forced(process, "polite") == 0


def test_greenlets_beside_a_thread(tmp_path: Path) -> None:
    pytest.importorskip("greenlet", reason="needs greenlet")
    process = run([sys.executable, HOSTS / "greenlets.py"], tmp_path)
    assert forced(process, "spinner") > 0
    assert forced(process, "MainThread") > 0

"""Programs under a seccomp filter, which kills for a system call that the program itself has no need of."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, environment, of_kind, overlaps, read, traced_environment

CONFINED = TARGETS / "hosts" / "confined.py"
DEPTH = "0"

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter names x86-64's system calls")


def test_one_that_confines_itself(interpreter: Interpreter, tmp_path: Path) -> None:
    append_pair(tmp_path)
    env = {**traced_environment(tmp_path), "GILTRACE_STACKS": DEPTH}
    command: list[str | Path] = [interpreter.path, "-W", "ignore", CONFINED, "self"]
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "alive\n", "")
    (process,) = read(tmp_path)
    assert (process.lost, process.note) == (0, "")
    (file,) = tmp_path.glob("gil-*.bin")
    assert np.fromfile(file, layout.HEADER, 1)["confined"] == 1
    assert overlaps(process.events) == 0
    counts = np.bincount(of_kind(process.events, layout.Kind.ACQUIRE)["thread"])
    assert (np.sort(counts)[-4:-1] >= 20000).all(), "the threads that were there before"
    assert (np.sort(counts)[-7:-4] >= 5000).all(), "those that came later"
    assert len(counts) == 1 + 3 + 3 + 30
    ends = of_kind(process.events, layout.Kind.THREAD_END)
    assert len(ends) == 3 + 3 + 30
    assert len({thread.tid for thread in process.threads}) > 1
    assert all(thread.tid != 0 for thread in process.threads)


def test_one_that_was_confined_when_it_began(interpreter: Interpreter, tmp_path: Path) -> None:
    append_pair(tmp_path)
    words = [f"{name}={value}" for name, value in environment(tmp_path).items()]
    program: list[str | Path] = [interpreter.path, "-W", "ignore", CONFINED, "plain"]
    command: list[str | Path] = [sys.executable, CONFINED, "inherited", "env", *words, *program]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "alive\n", "")
    parent, child = sorted(read(tmp_path), key=lambda process: process.start)
    for process, least in ((parent, 15000), (child, 5000)):
        assert (process.lost, process.note) == (0, "")
        assert len(of_kind(process.events, layout.Kind.ACQUIRE)) >= least
        assert overlaps(process.events) == 0
    assert child.ppid == parent.pid


PRCTL, RENAME = 157, 82
ENDS = f"""
import os, sys
code = open({str(CONFINED)!r}).read()
exec(code[:code.index("if sys.argv")])
confine([*UNUSUAL, {PRCTL}, {RENAME}], True)
use(100)
child = os.fork()
if child == 0:
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
print("alive", flush=True)
"""


@pytest.mark.parametrize("options", [["--light"], [], ["--spans"]])
def test_children_and_end_of_one_that_confined_itself(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "app.py").write_text(ENDS)
    command: list[str | Path] = [sys.executable, "-m", "giltrace", "record", *options, "-o", tmp_path / "x"]
    command += ["--", sys.executable, "-W", "ignore", tmp_path / "app.py"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stdout) == (0, "alive\n"), ran.stderr

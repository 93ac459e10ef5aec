"""Children that come about in ways of which no library is told: each is a process of its own in the recording."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, of_kind, overlaps, read, traced_environment


@pytest.mark.parametrize(("maker", "children"), [("main", 1), ("thread", 3), ("child", 2), ("fork", 2)])
def test_a_bare_clone_has_a_file_of_its_own(
    interpreter: Interpreter, tmp_path: Path, maker: str, children: int
) -> None:
    append_pair(tmp_path)
    command: list[str | Path] = [interpreter.path, "-W", "ignore", TARGETS / "hosts" / "clones.py", maker]
    env = {**traced_environment(tmp_path), "GILTRACE_STACKS": "64"}
    ran = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    told = {int(pid): int(turns) for pid, turns in (line.split() for line in ran.stdout.splitlines())}
    assert len(told) == children + 1
    processes = read(tmp_path)
    assert len(processes) == children + 1
    (parent,) = (process for process in processes if process.ppid == os.getpid())
    for process in processes:
        assert (process.lost, process.note) == (0, "")
        assert process.python == parent.python != ""
        acquires = of_kind(process.events, layout.Kind.ACQUIRE)
        assert told[process.pid] <= len(acquires) < told[process.pid] + 2000
        # A child that nobody told of goes on with the GIL that its parent held.
        assert overlaps(process.events[int(process.events["kind"][0] == layout.Kind.RELEASE) :]) == 0

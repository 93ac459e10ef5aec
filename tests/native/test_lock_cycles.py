"""Locks in a storm: tracing begins and ends while threads sleep, wake each other, are interrupted, fork and end."""

from __future__ import annotations

import subprocess
from pathlib import Path

from giltrace import native
from giltrace.timeline.model import BlockEnd
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, read
from tests.unit.gil_events import timeline

CYCLES = 40


def run(interpreter: Interpreter, folder: Path) -> None:
    words = TARGETS / "lock_cycles.py", native.LIBRARY, folder, CYCLES, "fork"
    command = [str(interpreter.path), "-W", "ignore", *map(str, words)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, (ran.returncode, ran.stderr)


def test_recordings_begin_and_end_while_threads_sleep(any_interpreter: Interpreter, tmp_path: Path) -> None:
    run(any_interpreter, tmp_path)
    woken = unknown = 0
    for number in range(CYCLES):
        for recorded in read(tmp_path / str(number)):
            assert recorded.lost == 0
            (process,) = timeline([recorded]).processes
            assert process.violations == ()
            blocks = process.blocks[process.blocks["ended"] == BlockEnd.WOKEN]
            woken += len(blocks)
            unknown += int((blocks["waker"] < 0).sum())
            assert not (process.blocks["ended"] == BlockEnd.FAILED).any()
    assert woken > 0
    # Who falls asleep just after its lock was given back, and wakes at once, has been seen by nobody.
    assert unknown <= 1 + woken // 50

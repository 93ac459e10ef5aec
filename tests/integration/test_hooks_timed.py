"""What the hooks cost is timed in the program itself: one use of a GIL in so many, whatever becomes of the record."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from giltrace.collectors.gil import GilCollector
from giltrace.recording import gil, layout
from giltrace.recording.clock_file import append_pair
from giltrace.recording.gil_file import GilFile
from tests.interpreters import Interpreter
from tests.tracing import traced_environment

#: Of one thread, each read is a release and an acquire.
READS = 20_000
PROGRAM = f"""
import os, sys
zero = os.open("/dev/zero", os.O_RDONLY)
def uses():
    for _ in range({READS}):
        os.read(zero, 1)
uses()
if sys.argv[1:] == ["family"]:
    child = os.fork()
    if child == 0:
        uses()
        os.execv(sys.executable, [sys.executable, sys.argv[0]])
    os.waitpid(child, 0)
"""
MODES = {
    "record": {},
    "with stacks": {"GILTRACE_STACKS": "32"},
    "ring": {"GILTRACE_RING": "65536"},
    "count": {"GILTRACE_COUNT": "only"},
    "family": {},
}


def run(python: Path, folder: Path, mode: str) -> tuple[list[GilFile], float]:
    """The files of the program's images, and the CPU time (s) that they took."""
    program = folder / "program.py"
    program.write_text(PROGRAM)
    append_pair(folder)
    words: list[str | Path] = [python, program, *(["family"] if mode == "family" else [])]
    with subprocess.Popen(words, env={**traced_environment(folder), **MODES[mode]}) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    append_pair(folder)
    return list(gil.open_files(folder)), used.ru_utime + used.ru_stime


@pytest.mark.parametrize("mode", MODES)
def test_a_sample_of_the_hooks_is_timed(interpreter: Interpreter, mode: str, tmp_path: Path) -> None:
    files, cpu_s = run(Path(interpreter.path), tmp_path, mode)
    assert len(files) == (3 if mode == "family" else 1)
    ticks = gil.tick_clock(tmp_path, files)
    hooks_s = 0.0
    for file in files:
        head = file.header
        every, timed, took = int(head["timed_every"]), int(head["timed"]), int(head["timed_ticks"])
        seen = every * (timed + int(head["timed_interrupted"]))
        # A read is two uses; beside them are those of the interpreter's begin and end, some hundred.
        assert 2 * READS - every <= seen < 2.5 * READS
        assert 0 < took <= timed * (layout.TIMED_MOST - 1)
        assert took**2 <= timed * int(head["timed_squares"])
        if file.clock is layout.Clock.TSC:
            start = int(head["start_ticks"])
            begin, end = ticks.to_ns(np.array([start, start + took * every], np.uint64)).tolist()
            took = (end - begin) // every
        hooks_s += took * every / 1e9
    assert 0 < hooks_s < cpu_s


def test_recording_tells_of_the_sample(tmp_path: Path) -> None:
    files, cpu_s = run(Path(sys.executable), tmp_path, "record")
    cost = GilCollector().report(tmp_path).cost
    told = re.match(
        r"(\d+) release\+acquire pairs: hooks ([\d.]+) \+- ([\d.]+) ms by a sample of (\d+) uses, "
        r"(\d+) \+- \d+ ns each, \+ [\d.]+ ms for new stacks, looks and space = [\d.]+ ms$",
        cost,
    )
    assert told, cost
    pairs, hooks, error, uses, each = map(float, told.groups())
    assert pairs >= READS
    assert uses == int(files[0].header["timed"])
    assert 0 < hooks / 1e3 < cpu_s
    assert error < hooks
    assert each > 0


def test_recording_of_an_older_tracer_goes_by_the_model(tmp_path: Path) -> None:
    files, _ = run(Path(sys.executable), tmp_path, "record")
    assert layout.HEADER.fields is not None
    at = layout.HEADER.fields["timed_ticks"][1]
    with files[0].path.open("r+b") as raw:  # a head ended with what lies before these fields
        raw.seek(at)
        raw.write(bytes(layout.HEADER.itemsize - at))
    cost = GilCollector().report(tmp_path).cost
    assert " ns in a tight loop, as the tracer was one that times nothing, + " in cost
    assert " = at least " in cost

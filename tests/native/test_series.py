"""Recordings that follow upon each other in one process: each has all of its own, and leaves nothing behind."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from giltrace import native
from giltrace.recording import layout
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, of_kind, read

THREADS = 46
RECORDINGS = 40


def series(
    python: Path, folder: Path, threads: int, recordings: int, milliseconds: int
) -> list[tuple[dict[str, int], int, int]]:
    command: list[str | Path] = [python, TARGETS / "series.py", native.LIBRARY, folder]
    command += [str(number) for number in (threads, recordings, milliseconds)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 0, (ran.returncode, ran.stderr)
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_every_thread_is_in_every_recording(interpreter: Interpreter, tmp_path: Path) -> None:
    for number, (seen, _, _) in enumerate(series(interpreter.path, tmp_path, THREADS, RECORDINGS, 50)):
        (process,) = read(tmp_path / str(number))
        assert process.lost == 0
        acquires = of_kind(process.events, layout.Kind.ACQUIRE)
        found = np.bincount(acquires["thread"], minlength=len(process.threads))
        recorded = {thread.tid: int(count) for thread, count in zip(process.threads, found, strict=True)}
        short = {tid: (count, recorded.get(int(tid), 0)) for tid, count in seen.items()}
        assert not {tid: pair for tid, pair in short.items() if pair[1] < pair[0]}, number


@pytest.mark.unsanitized("asan")
def test_no_file_stays_mapped(interpreter: Interpreter, tmp_path: Path) -> None:
    after = series(interpreter.path, tmp_path, 4, 200, 5)
    assert {files for _, _, files in after} == {0}
    mappings = [count for _, count, _ in after]
    # The interpreter's own memory comes and goes, by more than that; what is left behind does not go.
    assert min(mappings[-50:]) <= max(mappings[:10]) + 2

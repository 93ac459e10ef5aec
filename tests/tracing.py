"""Run a program under the bare tracer library, without the recorder, and read what it wrote."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from giltrace import native
from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from giltrace.recording.events import Array, ProcessEvents
from giltrace.recording.gil import read_processes

TARGETS = Path(__file__).parent / "targets"
WORKLOADS = Path(__file__).parent.parent / "workloads"


def environment(folder: Path) -> dict[str, str]:
    """The variables that put a process under the tracer, writing into `folder`."""
    first = os.environ.get("GILTRACE_TEST_PRELOAD", "")  # by tests/sanitizers.py
    return {"LD_PRELOAD": f"{first} {native.LIBRARY}".strip(), "GILTRACE_OUT": str(folder)}


def traced_environment(folder: Path) -> dict[str, str]:
    return {**os.environ, **environment(folder)}


@contextlib.contextmanager
def waiting(*words: str | Path, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that says "ready", to be told what to do, until the end of the block."""
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, **options) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def recorded(program: Path, folder: Path) -> Iterator[int]:
    """Run a program that says "ready" and ends with its input under `giltrace record`; yields its pid meanwhile."""
    command = [sys.executable, "-m", "giltrace", "record", "--light", "-o", str(folder), str(program)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as recorder:
        assert recorder.stdout is not None
        assert recorder.stdout.readline() == "ready\n"
        (path,) = folder.glob("gil-*.bin")
        try:
            yield int(path.name.split("-")[1])
        finally:
            _, errors = recorder.communicate("\n", timeout=60)
        assert recorder.returncode == 0, errors


def read(folder: Path) -> list[ProcessEvents]:
    append_pair(folder)
    return read_processes(folder)[0]


def of_kind(events: Array, kind: layout.Kind) -> Array:
    selected: Array = events[events["kind"] == kind]
    return selected


def overlaps(events: Array) -> int:
    """How many times two threads held one GIL at once: acquires and releases must alternate, for each GIL."""
    wrong = 0
    for gil in np.unique(events["gil"]):
        both = events[
            (events["gil"] == gil) & ((events["kind"] == layout.Kind.ACQUIRE) | (events["kind"] == layout.Kind.RELEASE))
        ]
        expected = np.where(np.arange(both.size) % 2 == 0, layout.Kind.ACQUIRE, layout.Kind.RELEASE)
        same_thread = both["thread"][0 : both.size // 2 * 2 : 2] == both["thread"][1::2]
        wrong += int((both["kind"] != expected).sum()) + int((~same_thread).sum())
    return wrong

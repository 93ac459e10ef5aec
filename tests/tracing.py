"""Run a program under the bare tracer library, without the recorder, and read what it wrote."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from giltrace import native
from giltrace.recording import layout
from giltrace.recording.clock import append_pair
from giltrace.recording.events import Array, ProcessEvents
from giltrace.recording.gil import read_processes

TARGETS = Path(__file__).parent / "targets"
WORKLOADS = Path(__file__).parent.parent / "workloads"


def environment(folder: Path) -> dict[str, str]:
    """The variables that put a process under the tracer, writing into `folder`."""
    return {"LD_PRELOAD": str(native.LIBRARY), "GILTRACE_OUT": str(folder)}


def traced_environment(folder: Path) -> dict[str, str]:
    return {**os.environ, **environment(folder)}


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

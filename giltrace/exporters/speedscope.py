"""Flame graphs for speedscope: per thread one of its waiting and one of its holding, in nanoseconds."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import numpy as np

from giltrace import __version__
from giltrace.analysis.measure.stack_totals import StackTotals, frames, holding, waiting
from giltrace.analysis.site import Frame
from giltrace.errors import UsageError
from giltrace.exporters._names import command_words, labels
from giltrace.timeline.model import Process, Timeline

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_NO_STACK: Frame = ("(no Python stack)", "", 0)


def stream(timeline: Timeline, file: BinaryIO) -> None:
    """Write the profiles, those of waiting first; raises `UsageError` if no use of a GIL is on record."""
    known: dict[Frame, int] = {}
    profiles = [
        profile
        for title, totals_of in (("waiting", waiting), ("holding", holding))
        for process in timeline.processes
        for profile in _profiles(process, title, totals_of(process), known)
    ]
    if not profiles:
        raise UsageError("no use of the GIL is on record", "see `giltrace report` for what is in the recording")
    shown = max(range(len(profiles)), key=lambda at: (profiles[at]["name"].startswith("waiting"), _total(profiles[at])))
    whole = {
        "$schema": _SCHEMA,
        "exporter": f"giltrace {__version__}",
        "name": " ".join(command_words(timeline.processes[0])),
        "activeProfileIndex": shown,
        "shared": {"frames": [_frame(frame) for frame in known]},
        "profiles": profiles,
    }
    for part in json.JSONEncoder(separators=(",", ":")).iterencode(whole):
        file.write(part.encode())


def _profiles(process: Process, title: str, totals: StackTotals, known: dict[Frame, int]) -> list[dict[str, Any]]:
    """One profile per thread; each distinct stack is one sample, its weight the time spent in it."""
    names = labels(process)
    edges = np.searchsorted(totals.thread, np.arange(len(names) + 1)).tolist()
    made = []
    for at, thread in enumerate(process.threads):
        rows = slice(edges[at], edges[at + 1])
        weights = totals.ns[rows].tolist()
        if not weights:
            continue
        stacks = (frames(process, stack) or [_NO_STACK] for stack in totals.stack[rows].tolist())
        samples = [[known.setdefault(frame, len(known)) for frame in stack] for stack in stacks]
        made.append(
            {
                "type": "sampled",
                "name": f"{title}: {names[at]} (pid {process.pid}, tid {thread.tid})",
                "unit": "nanoseconds",
                "startValue": 0,
                "endValue": sum(weights),
                "samples": samples,
                "weights": weights,
            }
        )
    return made


def _total(profile: dict[str, Any]) -> int:
    return int(profile["endValue"])


def _frame(frame: Frame) -> dict[str, Any]:
    name, file, line = frame
    return {"name": name} | ({"file": file} if file else {}) | ({"line": line} if line > 0 else {})

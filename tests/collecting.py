"""Runs a program under some of the collectors, as the recorder does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from giltrace.collectors.base import Collector, Session
from giltrace.launch.child import Child
from giltrace.recording.collected import CollectorReport
from giltrace.recording.events import Spans


def record(
    folder: Path,
    collectors: Sequence[Collector],
    argv: Sequence[object],
    meanwhile: Callable[[int], None] = lambda pid: None,
) -> tuple[int, list[CollectorReport]]:
    """Run `argv` under `collectors`, calling `meanwhile` with its pid between polls; its status and their reports."""
    env = dict(os.environ)
    for collector in collectors:
        collector.prepare(folder, env)
    child = Child([str(word) for word in argv], env)
    for collector in collectors:
        collector.start(Session(folder, child.pid, None))
    child.release()
    while (status := child.wait(0.02)) is None:
        for collector in collectors:
            collector.poll()
        meanwhile(child.pid)
    return status, [collector.stop() for collector in collectors]


def script(folder: Path, text: str) -> Path:
    path = folder / "program.py"
    path.write_text(text)
    return path


def check_nesting(spans: Spans) -> None:
    open_: list[tuple[int, int, int]] = []
    for start, end, tid, _, depth in spans.spans.tolist():
        while open_ and (open_[-1][0] != tid or open_[-1][2] <= start):
            open_.pop()
        assert len(open_) == depth
        assert start <= end
        assert not open_ or end <= open_[-1][2]
        open_.append((tid, start, end))

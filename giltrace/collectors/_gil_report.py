"""What the exact collector says of itself: what a recording holds, and what that cost the program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from giltrace import native
from giltrace.recording import clock, gil, layout
from giltrace.recording.collected import CollectorReport
from giltrace.recording.gil_file import GilFile, note_of

NAME = "gil"


def report(folder: Path, why_unseen: Callable[[], str]) -> CollectorReport:
    """Say what the finished recording in `folder` holds; `why_unseen` tells why there is no interpreter in it."""
    files = gil.open_files(folder)
    traced = [file for file in files if layout.Status.HOOKED in layout.Status(int(file.header["status"]))]
    if not traced:
        notes = [note_of(file.header) for file in files]
        return CollectorReport(NAME, notes[0] if notes else why_unseen())
    ticks = gil.tick_clock(folder, traced)
    pairs = sum(gil.count_records(file, layout.Kind.RELEASE) for file in traced)
    return CollectorReport(NAME, "ok", _cost(pairs, traced, ticks), ticks.error_ns)


def _cost(pairs: int, files: Sequence[GilFile], ticks: clock.TickClock) -> str:
    """What tracing cost, in words: the hooks are measured in a tight loop, which spares them the way to memory."""
    each = native.pair_cost_ns()
    slow = sum(_length_ns(file, int(file.header["slow_ticks"]), ticks) for file in files)
    told = f"{pairs} release+acquire pairs x {each:.0f} ns + {slow / 1e6:.1f} ms for new stacks and space"
    return f"{told} = at least {(pairs * each + slow) / 1e6:.1f} ms"


def _length_ns(file: GilFile, length: int, ticks: clock.TickClock) -> int:
    if file.clock is layout.Clock.MONOTONIC_NS:
        return length
    start = int(file.header["start_ticks"])
    begin, end = ticks.to_ns(np.array([start, start + length], np.uint64)).tolist()
    return int(end - begin)

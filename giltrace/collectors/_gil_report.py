"""What the exact collector says of itself: what a recording holds, and what that cost the program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

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
    """What tracing cost, in words: as the tracer has timed it there, or else by the hooks in a tight loop here."""
    slow = sum(_length_ns(file, int(file.header["slow_ticks"]), ticks) for file in files)
    samples = [_Sample.of(file, _length_ns(file, _SECOND, ticks) / _SECOND) for file in files]
    timed = sum(sample.uses for sample in samples)
    if not timed or any(not sample.every for sample in samples):
        # A lower bound: the loop spares them the way to memory.
        each = native.pair_cost_ns()
        told = f"{pairs} release+acquire pairs x {each:.0f} ns in a tight loop, as {_why_untimed(samples)}"
        return f"{told}, + {slow / 1e6:.1f} ms for new stacks and space = at least {(pairs * each + slow) / 1e6:.1f} ms"
    total, error = sum(sample.total for sample in samples), sum(sample.variance for sample in samples) ** 0.5
    mean = sum(sample.sum for sample in samples) / timed
    spread = max(sum(sample.squares for sample in samples) / timed - mean**2, 0) ** 0.5
    told = f"{pairs} release+acquire pairs: hooks {total / 1e6:.1f} +- {error / 1e6:.1f} ms by a sample of {timed} uses"
    rest = f"{slow / 1e6:.1f} ms for new stacks, looks and space"
    return f"{told}, {mean:.0f} +- {spread:.0f} ns each, + {rest} = {(total + slow) / 1e6:.1f} ms"


#: So many ticks are some second: long enough for the rounding of its ns to be nothing.
_SECOND = 1 << 31


class _Sample(NamedTuple):
    """What was timed in one process: `uses`, one in `every` (0: none, by an older tracer), which took `sum` ns.

    `squares` (ns^2) is the sum of the squares. `total` (ns) is what all uses took by that, with this `variance` (ns^2).
    """

    every: int
    uses: int
    sum: float
    squares: float
    total: float
    variance: float

    @classmethod
    def of(cls, file: GilFile, rate: float) -> _Sample:
        """Read it from the head of a file; `rate` is ns per tick."""
        every, uses, interrupted = (int(file.header[f"timed{name}"]) for name in ("_every", "", "_interrupted"))
        took = int(file.header["timed_ticks"]) * rate
        squares = int(file.header["timed_squares"]) * rate**2
        # Those whose thread lost its core are taken to have worked as long as the others.
        weight = every * (uses + interrupted) / max(uses, 1)
        # Of a use that is timed by chance, once in `every` times.
        return cls(every, uses, took, squares, weight * took, weight * max(weight - 1, 0) * squares)


def _why_untimed(samples: Sequence[_Sample]) -> str:
    return "nothing was timed" if all(sample.every for sample in samples) else "the tracer was one that times nothing"


def _length_ns(file: GilFile, length: int, ticks: clock.TickClock) -> int:
    if file.clock is layout.Clock.MONOTONIC_NS:
        return length
    start = int(file.header["start_ticks"])
    begin, end = ticks.to_ns(np.array([start, start + length], np.uint64)).tolist()
    return int(end - begin)

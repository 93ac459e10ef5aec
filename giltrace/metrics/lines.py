"""The lines of the program that counted stacks stand for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from giltrace.analysis.measure.block_causes import BlockCause, cause_of_frames
from giltrace.metrics import layout
from giltrace.metrics.count_file import Scale
from giltrace.metrics.reading import CauseReading, LineReading
from giltrace.recording.door import MAX_COUNT
from giltrace.recording.stacks import Frame, LiveStacks
from giltrace.text import visible

#: A stack's number, how often it was there, the ticks on its account, and by how many those may be too many.
Place = tuple[int, int, int, int]


def places(table: np.void) -> list[Place]:
    """The places of a table that are taken, but for what no tracer writes."""
    used = min(int(table["used"]), layout.PLACES)
    columns = (table[name][:used].tolist() for name in ("stacks", "times", "ticks", "error"))
    return [place for place in zip(*columns, strict=True) if place[1] < MAX_COUNT]


class Lines:
    """Knows the lines that stacks stand for, and what was waited for there."""

    def __init__(self, path: Path, version: tuple[int, int]) -> None:
        self._stacks = LiveStacks(path, version)
        self._cause: dict[int, BlockCause] = {}

    def update(self) -> None:
        """Read the stacks that were written since the last call."""
        self._stacks.update()

    def readings(self, taken: Sequence[Place], scale: Scale) -> tuple[LineReading, ...]:
        """The lines of (stack, times, ticks, error), those with the most first."""
        sums: dict[tuple[Frame, bool], list[int]] = defaultdict(lambda: [0, 0, 0])
        tops = self._stacks.top(np.array([number & ~layout.COLLECTS for number, *_ in taken], np.int32)).tolist()
        for top, (number, *figures) in zip(tops, taken, strict=True):
            own = self._stacks.tops[top][1] if top >= 0 else ("", "", 0)
            key = own, number & layout.COLLECTS != 0
            sums[key] = [one + other for one, other in zip(sums[key], figures, strict=True)]
        to_ns = scale.ns
        lines = [
            LineReading(visible(file), line, visible(function), to_ns(ticks), to_ns(error), times, collecting)
            for ((function, file, line), collecting), (times, ticks, error) in sums.items()
        ]
        return tuple(sorted(lines, key=lambda one: (-one.ns, one.place)))

    def causes(self, taken: Iterable[Place], scale: Scale) -> tuple[CauseReading, ...]:
        """What was waited for in these stacks, the most first."""
        sums: dict[BlockCause, list[int]] = defaultdict(lambda: [0, 0, 0])
        for number, *figures in taken:
            if number not in self._cause:
                frames = [(file, function) for function, file, _ in self._stacks.stack(number)]
                self._cause[number] = cause_of_frames(frames)
            cause = self._cause[number]
            sums[cause] = [one + other for one, other in zip(sums[cause], figures, strict=True)]
        to_ns = scale.ns
        causes = [
            CauseReading(cause.label, times, to_ns(ticks), to_ns(error))
            for cause, (times, ticks, error) in sums.items()
        ]
        return tuple(sorted(causes, key=lambda one: (-one.blocked_ns, one.cause)))

"""Which native functions threads were in during given times, as samples of what they ran show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from giltrace.analysis.durations import percent
from giltrace.analysis.finding_results import SampledFunction
from giltrace.recording.events import NativeFunction
from giltrace.text import plural
from giltrace.timeline.axis import Ints, concatenated_ranges
from giltrace.timeline.model import Process

#: So many functions are told of each group, those with the most samples.
MOST_FUNCTIONS = 10


class Seen(NamedTuple):
    """The functions of one group with the most samples, most first, and how many `samples` there were in all."""

    functions: tuple[SampledFunction, ...] = ()
    samples: int = 0


def native_functions(process: Process, thread: Ints, start: Ints, end: Ints, group: Ints) -> dict[int, Seen]:
    """Say for each `group` in which native functions its times (one `thread`, `start` and `end` per row) were spent.

    Groups of which there is no sample are left out.
    """
    functions, samples = process.native_code.functions, process.native_code.samples
    if not len(samples) or not len(thread):
        return {}
    tids = np.array([one.tid for one in process.threads], np.int64)[thread]
    low, high = np.empty(len(tids), np.int64), np.empty(len(tids), np.int64)
    for tid in np.unique(tids).tolist():
        first, last = np.searchsorted(samples["tid"], [tid, tid + 1])
        mine = tids == tid
        times = samples["time"][first:last]
        low[mine] = first + np.searchsorted(times, start[mine])
        high[mine] = first + np.searchsorted(times, end[mine])
    counts = high - low
    cell = np.repeat(group, counts) * len(functions) + samples["function"][concatenated_ranges(low, high)]
    cells, number = np.unique(cell, return_counts=True)
    found: dict[int, list[tuple[int, NativeFunction]]] = {}
    for one, count in zip(cells.tolist(), number.tolist(), strict=True):
        found.setdefault(one // len(functions), []).append((count, functions[one % len(functions)]))
    return {one: _seen(rows) for one, rows in found.items()}


def _seen(rows: list[tuple[int, NativeFunction]]) -> Seen:
    rows.sort(key=lambda row: (-row[0], row[1]))
    most = tuple(SampledFunction(*function, samples=count) for count, function in rows[:MOST_FUNCTIONS])
    return Seen(most, sum(count for count, _ in rows))


def functions_text(functions: Sequence[SampledFunction], samples: int, most: int = 3) -> str:
    """The functions that were seen most, in words: ``list_sort_impl 64 %, long_lt 31 % (python3.13, 52 samples)``."""
    shown = functions[:most]
    libraries = {one.library for one in shown if one.name}
    told = ", ".join(
        f"{one}{f' of {one.library}' if one.name and len(libraries) > 1 else ''} {percent(one.samples / samples)}"
        for one in shown
    )
    where = f"{libraries.pop()}, " if len(libraries) == 1 else ""
    return f"{told} ({where}{plural(samples, 'sample')})"

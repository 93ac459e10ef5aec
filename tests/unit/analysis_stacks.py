"""Give a hand-written process the stacks that a test wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from giltrace.analysis.site import Site
from giltrace.recording.events import FRAME, StackTable
from giltrace.timeline.model import Process, Stacks

Frame = tuple[str, str, int]


def stack_table(stacks: Sequence[Sequence[Frame]], truncated: Sequence[int] = ()) -> StackTable:
    """A table of stacks of (function, file, line), innermost first."""
    strings: dict[str, int] = {}
    frames = [
        (strings.setdefault(function, len(strings)), strings.setdefault(file, len(strings)), line, 0, 0)
        for stack in stacks
        for function, file, line in stack
    ]
    offsets = np.cumsum([0, *(len(stack) for stack in stacks)])
    cut = np.isin(np.arange(len(stacks)), truncated)
    return StackTable(np.array(frames, FRAME), offsets.astype(np.int64), cut, tuple(strings))


def own_site(thread: str, function: str, file: str, line: int) -> Site:
    """A thread in the user's own code."""
    return Site(thread, function, file, line, False, function, file, line)


def with_stacks(
    process: Process,
    stacks: Sequence[Sequence[Frame]],
    *,
    hold: Mapping[int, int] | None = None,
    wait: Mapping[int, int] | None = None,
    request: Mapping[int, int] | None = None,
    truncated: Sequence[int] = (),
) -> Process:
    """Give the holds and waits of threads (by number) stacks, and switch requests by their own number."""

    def of_threads(rows: np.ndarray, known: Mapping[int, int] | None) -> np.ndarray:
        return np.array([(known or {}).get(int(thread), -1) for thread in rows["thread"]], np.int32)

    asked = np.full(len(process.switch_requests), -1, np.int32)
    for at, number in (request or {}).items():
        asked[at] = number
    held = of_threads(process.holds, hold)
    table = stack_table(stacks, truncated)
    return replace(process, stacks=Stacks(table, held, held, of_threads(process.waits, wait), asked))

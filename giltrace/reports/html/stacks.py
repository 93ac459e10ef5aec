"""The stacks that the lanes show: each frame is in the page once, each stack is a list of numbers of frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from giltrace.reports.html.lanes import Lane
from giltrace.reports.html.waits import place
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Stacks

#: So many stacks are in a page, all processes taken together: those with the most time in the lanes.
MOST = 6_000
#: So many frames of each, the innermost ones.
MOST_FRAMES = 10
#: Numbers of what is not a stack: none is known, or it is one of those left out.
NONE, LEFT_OUT, FIRST = 0, 1, 2


def stack_names(stacks: Stacks | None, lanes: list[Lane], most: int = MOST) -> tuple[dict[str, Any], Ints]:
    """Return what the page knows of the stacks of thinned lanes, and the number there of each stack and of none.

    The first is `frames`, a list of ``function (file:line)``, and `stacks`, lists of numbers of them, innermost first;
    a cut one ends in -1. Stack s of `stacks` is numbered s + `FIRST`.
    """
    known = len(stacks.table) if stacks is not None else 0
    numbers: Ints = np.full(known + 1, NONE, np.int64)
    if stacks is None:
        return {"frames": [], "stacks": []}, numbers
    spent = np.zeros(known + 1, np.int64)
    for lane in lanes:
        np.add.at(spent, lane.stack, lane.lengths)
    used = np.flatnonzero(spent[:-1])
    numbers[used] = LEFT_OUT
    largest = used[np.argsort(-spent[used], kind="stable")][:most]
    numbers[largest] = FIRST + np.arange(len(largest))
    frames: dict[tuple[int, int, int], int] = {}
    told = [_frames(stacks, stack, frames) for stack in largest.tolist()]
    strings = stacks.table.strings
    return {
        "frames": [place(strings[function], strings[file], line) for function, file, line in frames],
        "stacks": told,
    }, numbers


def _frames(stacks: Stacks, stack: int, frames: dict[tuple[int, int, int], int]) -> list[int]:
    table = stacks.table
    begin, end = table.offsets[stack : stack + 2].tolist()
    shown = table.frames[["function", "file", "line"]][begin : min(end, begin + MOST_FRAMES)].tolist()
    cut = table.truncated[stack] or end - begin > MOST_FRAMES
    return [frames.setdefault(frame, len(frames)) for frame in shown] + [-1] * bool(cut)

"""The stacks that the lanes show: each frame is in the page once, each stack is a list of numbers of frames."""

from __future__ import annotations

from typing import Any

import numpy as np

from giltrace.analysis.measure.own_code import own_stacks
from giltrace.analysis.measure.own_line import innermost_own, of_libraries
from giltrace.reports.html.lanes import Lane
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Stacks

#: So many stacks are in a page, all processes taken together: those with the most time in the lanes.
MOST = 6_000
#: So many frames of each, the innermost ones; and of all of a process together, where `LEAST_FRAMES` each are less.
MOST_FRAMES, LEAST_FRAMES = 40, 10
MOST_FRAMES_TOGETHER = 60_000
#: Numbers of what is not a stack: none is known, or it is one of those left out.
NONE, LEFT_OUT, FIRST = 0, 1, 2


def stack_names(stacks: Stacks | None, lanes: list[Lane], most: int = MOST) -> tuple[dict[str, Any], Ints]:
    """Return what the page knows of the stacks of thinned lanes, and the number there of each stack and of none.

    The first is `frames`, a list of [function, file, line]; `library_frames`, the numbers of those that are not the
    user's; `stacks`, lists of numbers of frames, innermost first, -1 where some are left out; `own`, for each stack the
    number of its innermost frame in the user's code, or -1; and `own_stacks`, those in which giltrace itself ran.
    Stack s of `stacks` is numbered s + `FIRST`.
    """
    known = len(stacks.table) if stacks is not None else 0
    numbers: Ints = np.full(known + 1, NONE, np.int64)
    if stacks is None or known == 0:
        return {"frames": [], "library_frames": [], "stacks": [], "own": [], "own_stacks": []}, numbers
    spent = np.zeros(known + 1, np.int64)
    for lane in lanes:
        np.add.at(spent, lane.stack, lane.lengths)
    used = np.flatnonzero(spent[:-1])
    numbers[used] = LEFT_OUT
    largest = used[np.argsort(-spent[used], kind="stable")][:most]
    numbers[largest] = FIRST + np.arange(len(largest))
    return _told(stacks, largest), numbers


def _told(stacks: Stacks, shown: Ints) -> dict[str, Any]:
    table = stacks.table
    deepest = min(max(MOST_FRAMES_TOGETHER // max(len(shown), 1), LEAST_FRAMES), MOST_FRAMES)
    own_place = innermost_own(table)[shown].tolist()
    fields = table.frames[["function", "file", "line"]]
    frames: dict[tuple[int, int, int], int] = {}
    told, own = [], []
    for stack, place in zip(shown.tolist(), own_place, strict=True):
        begin, end = table.offsets[stack : stack + 2].tolist()
        numbers = [
            frames.setdefault(frame, len(frames)) for frame in fields[begin : min(end, begin + deepest)].tolist()
        ]
        own.append(-1 if place < 0 else frames.setdefault(fields[place].item(), len(frames)))
        # The line that the stack is told by is there, however deep the library below it.
        left = [-1] * bool(table.truncated[stack] or end - begin > deepest)
        told.append([*numbers, *([-1, own[-1]] if place >= begin + deepest else left)])
    strings, library = table.strings, of_libraries(table)
    return {
        "frames": [[strings[function], strings[file], line] for function, file, line in frames],
        "library_frames": [at for at, (_, file, _) in enumerate(frames) if library[file]],
        "stacks": told,
        "own": own,
        "own_stacks": np.flatnonzero(own_stacks(table)[shown]).tolist(),
    }

"""Where to look first: the stretch of a recording in which threads lost most to the GIL, and its longest waits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from giltrace.errors import UsageError
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Timeline

#: A stretch to look at is at least so long: some tens of hand-overs at the usual switch interval of 5 ms.
SHORTEST_STRETCH = 100_000_000
#: What is shown on either side of a wait: this part of its length, and at least so many ns.
_MARGIN, _SHORTEST_MARGIN = 10, 1_000_000


class Stretch(NamedTuple):
    """An interval [start, end) in ns."""

    start: int
    end: int


def worst_stretch(start: Ints, end: Ints) -> Stretch | None:
    """The stretch that is twice as long as the longest wait, and at least 100 ms, in which the waits took most time.

    `start` and `end` are those of the waits, of all threads, in ns and in any order. Of several such stretches it is
    the earliest; None if there are no waits.
    """
    if not len(start):
        return None
    width = max(2 * int((end - start).max()), SHORTEST_STRETCH)
    begin = np.sort(start)
    lost = _waited_until(begin + width, start, end) - _waited_until(begin, start, end)
    first = int(begin[int(lost.argmax())]) - width // _MARGIN
    return Stretch(first, first + width)


def around_waits(start: Ints, end: Ints, count: int) -> list[Stretch]:
    """The `count` longest waits, longest first, each with a tenth of its length and at least 1 ms on either side."""
    rows = np.argsort(start - end, kind="stable")[:count]
    margin = np.maximum((end - start)[rows] // _MARGIN, _SHORTEST_MARGIN)
    return [Stretch(*pair) for pair in zip((start[rows] - margin).tolist(), (end[rows] + margin).tolist(), strict=True)]


def chosen_stretches(
    timeline: Timeline, windows: Sequence[tuple[int, int | None]], top_waits: int | None
) -> list[tuple[int, int]]:
    """What a cut is to keep: `windows` (ns from the begin of the trace; None is its end) and the longest waits.

    Raises `UsageError` if a window begins where the trace has ended.
    """
    kept = placed(windows, *timeline.recorded)
    if top_waits is not None:
        kept += around_waits(*all_waits(timeline), top_waits)
    return kept


def placed(windows: Sequence[tuple[int, int | None]], first: int, last: int) -> list[tuple[int, int]]:
    """The stretches that `windows` from `first` on stand for; raises `UsageError` if one begins at `last` or later."""
    for start, _ in windows:
        if start >= last - first:
            raise UsageError(
                f"there is nothing from {start / 1e9:g} s on", f"the recording is {(last - first) / 1e9:.3f} s long"
            )
    return [(first + start, last if end is None else first + end) for start, end in windows]


def all_waits(timeline: Timeline) -> tuple[Ints, Ints]:
    """Start and end of the waits of all processes' chosen threads, in ns, shape (n,)."""
    empty, told = np.empty(0, np.int64), [one.waits[one.of_chosen(one.waits)] for one in timeline.processes]
    return (
        np.concatenate([empty, *(waits["start"] for waits in told)]),
        np.concatenate([empty, *(waits["end"] for waits in told)]),
    )


def _waited_until(time: Ints, start: Ints, end: Ints) -> Ints:
    """How long all waits together had lasted at each `time`."""
    origin = int(start.min())
    total = np.zeros(len(time), np.int64)
    for edges, sign in ((start, 1), (end, -1)):
        ordered = np.sort(edges) - origin
        # Sums may pass 2**63 and wrap around; their difference does not.
        before = np.append(0, np.cumsum(ordered))
        passed = np.searchsorted(ordered, time - origin, "left")
        total += sign * (passed * (time - origin) - before[passed])
    return total

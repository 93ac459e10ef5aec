"""What holds, waits, switch requests and blocks have to do with each other, as index arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.analysis.measure.intervals import requested_holds
from giltrace.timeline.axis import Bools, Ints, LifeAxis
from giltrace.timeline.model import Flag, Process


class Relations(NamedTuple):
    """Per hold: `following`, the next hold of the same GIL (-1: none), and whether a flow arrow ends at its begin
    (`arrow_in`) or leaves from its end (`arrow_out`). Per switch request the hold that it was made to (`asked_hold`)
    and whose that was (`asked`); -1: nobody's.
    """

    following: Ints
    arrow_in: Bools
    arrow_out: Bools
    asked: Ints
    asked_hold: Ints


def relate(process: Process) -> Relations:
    """Find the relations of one process."""
    holds = process.holds
    following = np.full(len(holds), -1, np.int64)
    for gil in range(process.gils):
        own = np.flatnonzero(holds["gil"] == gil)
        following[own[:-1]] = own[1:]
    holder = np.append(holds["thread"].astype(np.int64), -1)
    asked = requested_holds(process)
    arrows = _arrows(process, following)
    return Relations(following, *arrows, holder[asked], asked)


def waiting_counts(process: Process, gil: int) -> tuple[Ints, Ints]:
    """Return the times at which the number of waiting threads changes, and the number from then on."""
    waits = process.waits[process.waits["gil"] == gil]
    times = np.concatenate(([process.start], waits["start"], waits["end"]))
    steps = np.repeat([0, 1, -1], [1, len(waits), len(waits)])
    order = np.argsort(times, kind="stable")
    times, counts = times[order], np.cumsum(steps[order])
    last = np.append(times[1:] != times[:-1], True)
    return times[last], counts[last]


def _arrows(process: Process, following: Ints) -> tuple[Bools, Bools]:
    """An arrow goes from a release to the next hold if that is another thread's, which waited since before it."""
    holds, waits = process.holds, process.waits
    count = len(holds)
    waited_since = np.full(count, np.iinfo(np.int64).max)
    led = waits[waits["hold"] >= 0]
    waited_since[led["hold"]] = led["start"]
    arrow_in, arrow_out = np.zeros(count, bool), np.zeros(count, bool)
    before = np.flatnonzero(following >= 0)
    after = following[before]
    drawn = (
        (holds["thread"][before] != holds["thread"][after])
        & (waited_since[after] <= holds["end"][before])
        & (holds["flags"][before] & int(Flag.PARTIAL_END) == 0)
    )
    arrow_out[before[drawn]] = True
    arrow_in[after[drawn]] = True
    return arrow_in, arrow_out


def waking_holds(process: Process) -> Ints:
    """The hold in which each block's waker woke it, -1 if it did so without a GIL, or nobody did."""
    holds, blocks = process.holds, process.blocks
    found = np.full(len(blocks), -1, np.int64)
    if not len(holds) or not len(blocks):
        return found
    axis = LifeAxis.of_threads(process.threads)
    start = axis.place(holds["thread"], holds["start"])
    order = np.argsort(start, kind="stable")
    woken = np.flatnonzero(blocks["waker"] >= 0)
    waker, time = blocks["waker"][woken], blocks["woken"][woken]
    at = order[np.maximum(np.searchsorted(start[order], axis.place(waker, time), "right") - 1, 0)]
    within = (holds["thread"][at] == waker) & (holds["start"][at] <= time) & (time <= holds["end"][at])
    found[woken[within]] = at[within]
    return found

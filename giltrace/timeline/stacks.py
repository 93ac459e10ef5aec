"""Say which Python stack belongs to which hold, wait and switch request."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from giltrace.recording.events import StackTable
from giltrace.recording.order import stable_order
from giltrace.timeline.blocks import Blocks
from giltrace.timeline.holds import Usage
from giltrace.timeline.model import Array, Stacks

Numbers = npt.NDArray[np.int32]


def attribute(
    table: StackTable, usage: Usage, gathered: Array, blocked: Blocks, released: Numbers | None = None
) -> Stacks:
    """Complete what was recorded, which is the stacks at releases and those that were sampled.

    A thread that comes back for the GIL stands where it stood when it gave the GIL up, so the stack at an acquire, and
    during the wait before it, is that of the thread's release before. Those that were `gathered` (dtype `GATHERED`)
    know it. Who was not seen to give the GIL up told where it was as it asked for it. `released` are the stacks at
    releases if these holds are some of a process's only.
    """
    holds, waits, hold_end = usage.holds, usage.waits, usage.hold_stacks
    # They are in order of time.
    order = stable_order(holds["thread"], int(holds["thread"].max(initial=0)) + 1)
    begin = begins(usage, order, gathered)
    wait = _during(holds, waits, order, begin, hold_end)
    wait = np.where(wait < 0, usage.wait_stacks, wait)
    whole = np.append(~_torn(table, hold_end if released is None else released), False)
    request, sample = (
        np.where(whole[seen], seen, np.int32(-1)) for seen in (usage.request_stacks, usage.sample_stacks)
    )
    return Stacks(table, begin, hold_end, wait, request, sample, blocked.stack, blocked.wake_stack)


def begins(usage: Usage, order: npt.NDArray[np.intp], gathered: Array | None = None) -> Numbers:
    """The stack at the acquire of each hold, -1 if unknown; in this `order` they are sorted by thread and start."""
    holds, waits = usage.holds, usage.waits
    thread = holds["thread"][order]
    begin = np.full(len(holds), -1, np.int32)
    again = np.flatnonzero(thread[1:] == thread[:-1]) + 1
    begin[order[again]] = usage.hold_stacks[order[again - 1]]
    if gathered is not None:
        begin[gathered["hold"]] = gathered["before"]
    first = np.flatnonzero(waits["hold"] >= 0)
    first = first[begin[waits["hold"][first]] < 0]
    begin[waits["hold"][first]] = usage.wait_stacks[first]
    return begin


def _torn(table: StackTable, exact: Numbers) -> npt.NDArray[np.bool_]:
    """Which stacks, if sampled, are the inner part only of what they were.

    They were read while their thread ran. The chain of frames ends at a generator that gave its value meanwhile: at a
    function that is called by others elsewhere and that no thread is known to have begun with. `exact` are numbers of
    stacks that were not sampled.
    """
    filled = np.flatnonzero(table.offsets[1:] > table.offsets[:-1])
    code = table.frames["function"].astype(np.int64) * len(table.strings) + table.frames["file"]
    outermost = np.full(len(table), -1, np.int64)
    outermost[filled] = code[table.offsets[1:][filled] - 1]
    called = np.ones(len(code), np.bool_)
    called[table.offsets[1:][filled] - 1] = False
    torn = np.isin(outermost, code[called]) & ~table.truncated
    return torn & ~np.isin(outermost, outermost[np.unique(exact[exact >= 0])])


def _during(holds: Array, waits: Array, order: npt.NDArray[np.intp], begin: Numbers, hold_end: Numbers) -> Numbers:
    """The stack of each waiter: of the hold that it came to, or of its last hold before if it came to none."""
    led = waits["hold"] >= 0
    stack = np.full(len(waits), -1, np.int32)
    stack[led] = begin[waits["hold"][led]]
    rest = waits[~led]
    if len(rest) and len(holds):
        origin = min(int(holds["start"].min()), int(rest["start"].min()))
        span = max(int(holds["start"].max()), int(rest["start"].max())) - origin + 1
        place = holds["thread"][order].astype(np.int64) * span + (holds["start"][order] - origin)
        wanted = rest["thread"].astype(np.int64) * span + (rest["start"] - origin)
        at = np.searchsorted(place, wanted, side="right") - 1
        before = order[np.maximum(at, 0)]
        own = (at >= 0) & (holds["thread"][before] == rest["thread"])
        stack[~led] = np.where(own, hold_end[before], -1)
    return stack

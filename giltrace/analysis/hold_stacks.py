"""The stack that stands for each hold, and the holds that giltrace's own code in the program is responsible for."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.recording.events import StackTable
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process

Bools = npt.NDArray[np.bool_]

#: What runs within the program: the viztracer collector, which imports at the start and saves at the end.
_OWN_FILE = "/giltrace_viztracer.py"


def hold_at(process: Process, gil: npt.NDArray[Any], time: Ints) -> Ints:
    """Which hold of GIL `gil` was under way at each `time` (both one per row); -1 for none."""
    found = np.full(len(time), -1, np.int64)
    holds = process.holds
    for one in range(process.gils):
        own = np.flatnonzero(holds["gil"] == one)
        rows = np.flatnonzero(gil == one)
        if len(own) == 0 or len(rows) == 0:
            continue
        at = np.searchsorted(holds["start"][own], time[rows], "right") - 1
        hold = own[np.maximum(at, 0)]
        found[rows] = np.where((at >= 0) & (time[rows] < holds["end"][hold]), hold, -1)
    return found


def requested_holds(process: Process) -> Ints:
    """The hold that each switch request was made to, -1 where nobody held the GIL."""
    return hold_at(process, process.switch_requests["gil"], process.switch_requests["time"])


def hold_stacks(process: Process) -> npt.NDArray[np.int32]:
    """The stack that stands for each hold, -1 if unknown.

    It is what the first waiter read when it asked for the GIL, that is what kept it busy then; else the stack at the
    release, else the one at the acquire.
    """
    known = process.stacks
    if known is None:
        return np.full(len(process.holds), -1, np.int32)
    chosen = np.where(known.hold_end >= 0, known.hold_end, known.hold_begin).astype(np.int32)
    asked = requested_holds(process)
    seen = np.flatnonzero((asked >= 0) & (known.request >= 0))
    # Of several requests to one hold the first counts: it is assigned last.
    chosen[asked[seen[::-1]]] = known.request[seen[::-1]]
    return chosen


def own_stacks(table: StackTable) -> Bools:
    """Which stacks have a frame of giltrace's own code."""
    ours = [at for at, text in enumerate(table.strings) if text.endswith(_OWN_FILE)]
    if not ours:
        return np.zeros(len(table), np.bool_)
    frame = np.append(0, np.cumsum(np.isin(table.frames["file"], ours)))
    within: Bools = frame[table.offsets[1:]] > frame[table.offsets[:-1]]
    return within


def own_holds(process: Process) -> Bools:
    """Which holds giltrace's own code is responsible for: by the stack that stands for them."""
    if process.stacks is None:
        return np.zeros(len(process.holds), np.bool_)
    own = np.append(own_stacks(process.stacks.table), False)
    if not own.any():
        return np.zeros(len(process.holds), np.bool_)
    found: Bools = own[hold_stacks(process)]
    return found

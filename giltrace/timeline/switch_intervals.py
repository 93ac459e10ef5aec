"""The switch interval that was in force, as the timed waits tell it."""

from __future__ import annotations

import numpy as np

from giltrace.recording.layout import POWER_BITS, Kind
from giltrace.timeline.model import SWITCH_INTERVAL, Array


def switch_intervals(events: Array) -> Array:
    """Read the intervals off the REQUEST and TIMEOUT records of `events` (dtype `GIL_EVENT`).

    Returns `Process.switch_intervals`; recordings of a tracer that did not store them yet give none.
    """
    ran_out = events["kind"] == Kind.TIMEOUT
    timed = (ran_out | (events["kind"] == Kind.REQUEST)) & (events["arg"] > 0)
    ran_out, events = ran_out[timed], events[timed]
    length = (events["arg"] >> POWER_BITS).astype(np.int64)
    power = (events["arg"] & ((1 << POWER_BITS) - 1)).astype(np.int64)
    rows = np.empty(len(events), SWITCH_INTERVAL)
    rows["gil"] = events["gil"]
    rows["ns"] = length * 10**power * 1000
    # A wait that ran out began so long before: the interval was in force then already.
    rows["start"] = events["time"] - np.where(ran_out, rows["ns"], 0)
    rows = rows[np.lexsort((rows["start"], rows["gil"]))]
    changed = np.ones(len(rows), np.bool_)
    changed[1:] = (rows["gil"][1:] != rows["gil"][:-1]) | (rows["ns"][1:] != rows["ns"][:-1])
    rows = rows[changed]
    return rows[np.argsort(rows["start"], kind="stable")]

"""The switch interval that was in force, as the timed waits that ran out tell it."""

from __future__ import annotations

import numpy as np

from giltrace.recording.layout import POWER_BITS, Kind
from giltrace.timeline.model import SWITCH_INTERVAL, Array


def switch_intervals(events: Array) -> Array:
    """Read the intervals off the TIMEOUT records of `events` (dtype `GIL_EVENT`), as `Process.switch_intervals`.

    Recordings of a tracer that did not store them yet give none.
    """
    timed_out = events[(events["kind"] == Kind.TIMEOUT) & (events["arg"] > 0)]
    length = (timed_out["arg"] >> POWER_BITS).astype(np.int64)
    power = (timed_out["arg"] & ((1 << POWER_BITS) - 1)).astype(np.int64)
    rows = np.empty(len(timed_out), SWITCH_INTERVAL)
    rows["gil"] = timed_out["gil"]
    rows["ns"] = length * 10**power * 1000
    # The wait that ran out began so long before: the interval was in force then already.
    rows["start"] = timed_out["time"] - rows["ns"]
    rows = rows[np.lexsort((rows["start"], rows["gil"]))]
    changed = np.ones(len(rows), np.bool_)
    changed[1:] = (rows["gil"][1:] != rows["gil"][:-1]) | (rows["ns"][1:] != rows["ns"][:-1])
    rows = rows[changed]
    return rows[np.argsort(rows["start"], kind="stable")]

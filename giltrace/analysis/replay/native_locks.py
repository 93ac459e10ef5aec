"""Locks in native code: who lets whom in, told by who ran in a call while others were blocked in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.analysis.measure import usage
from giltrace.analysis.measure.intervals import covered
from giltrace.analysis.measure.off_gil import OffGil
from giltrace.recording.order import smallest
from giltrace.timeline.axis import Ints, union
from giltrace.timeline.model import State

#: A call off the GIL has a lock of its own if others ran in it for this share of a delay there: who waits for the
#: world, in a call that others compute in, waits as long whether they do or not.
NATIVE_SHARE = 0.5
#: So many delays are tied to the thread that ended them, the longest ones.
MOST_WAKES = 4_000


class Wakes(NamedTuple):
    """Delays of `thread` that ended at `time` because of what `waker` did."""

    thread: Ints
    time: Ints
    waker: Ints

    @classmethod
    def none(cls) -> Wakes:
        """No delays."""
        return cls(*(np.empty(0, np.int64) for _ in cls._fields))


def native_wakes(calls: OffGil) -> Wakes:
    """Delays in a call off the GIL that others were running in: native code with a lock of its own lets one in.

    Whoever ran in it last before a delay ended has let the delayed one in.
    """
    at = calls.place
    slept = np.flatnonzero(calls.states["state"] == State.OFF_BLOCKED)
    ran = np.flatnonzero(calls.states["state"] != State.OFF_BLOCKED)
    if len(slept) == 0 or not calls.total(State.OFF_RUNNING).any():
        return Wakes.none()
    slept = slept[smallest(-usage.lengths(calls.states.take(slept)), MOST_WAKES)]
    ran = ran[np.lexsort((calls.states["start"][ran], at[ran]))]
    places = np.unique(at[slept])
    edges = [np.searchsorted(at[ran], places, side) for side in ("left", "right")]
    found = []
    for place, low, high in zip(places.tolist(), *(edge.tolist() for edge in edges), strict=True):
        delay, running = calls.states[slept[at[slept] == place]], calls.states.take(ran[low:high])
        if len(running) == 0:
            continue
        busy = union(running["start"], running["end"])
        inside = covered(*busy, delay["end"]) - covered(*busy, delay["start"])
        delay = delay[inside >= NATIVE_SHARE * usage.lengths(delay)]
        last = np.searchsorted(running["start"], delay["end"], "left") - 1
        # Who goes on after the delay may have begun to run in the call just then.
        last -= running["thread"][last] == delay["thread"]
        kept = (last >= 0) & (running["thread"][last] != delay["thread"])
        found.append((delay["thread"][kept], delay["end"][kept], running["thread"][last[kept]]))
    columns = [np.concatenate(column).astype(np.int64) for column in zip(*found, strict=True)]
    return Wakes(*columns) if columns else Wakes.none()

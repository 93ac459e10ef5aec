"""Locks in native code: who lets whom in, told by who ran in a call while others were blocked in it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.analysis.measure import usage
from giltrace.analysis.measure.intervals import covered
from giltrace.analysis.measure.off_gil import OffGil
from giltrace.recording.order import smallest, stable_order
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
    at, state = calls.place, calls.state
    slept = np.flatnonzero(state == State.OFF_BLOCKED)
    if len(slept) == 0 or not (state == State.OFF_RUNNING).any():
        return Wakes.none()
    slept = slept[smallest(-usage.lengths(calls.states.take(calls.row[slept])), MOST_WAKES)]
    # Who ran there, place by place.
    there = np.bincount(at[slept], minlength=len(calls.sites)) > 0
    ran = np.flatnonzero(there[at] & (state != State.OFF_BLOCKED))
    ran = ran[stable_order(at[ran], len(there))]
    reach = np.cumsum(np.bincount(at[ran], minlength=len(there)))
    found = []
    for place in np.flatnonzero(there).tolist():
        delay = calls.states[calls.row[slept[at[slept] == place]]]
        running = calls.states.take(calls.row[ran[reach[place - 1] if place else 0 : reach[place]]])
        if len(running) == 0:
            continue
        running = running.take(np.argsort(running["start"], kind="stable"))
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

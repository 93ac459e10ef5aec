"""An outline of a process: of its events those that tell its threads, its locks and its end.

It takes the memory of a piece, whatever the recording. With what it notes of the other events (`events.Outlined`) these
can be read again, a window at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from giltrace.recording.events import GATHERED, GIL_EVENT, HAND_OFF, Array, Outlined
from giltrace.recording.layout import COLLECTING, Kind
from giltrace.recording.order import distinct, heads, stable_order
from giltrace.recording.stacks import placed

if TYPE_CHECKING:
    from giltrace.recording.clock import TickClock
    from giltrace.recording.door import Times
    from giltrace.recording.gil_file import GilFile

#: A thread that comes with these to a GIL had it, or waited for it, before.
_HEADLESS = (Kind.RELEASE, Kind.TIMEOUT)


class Outliner:
    """Outlines one file, whose events come in pieces, each sorted by time; in the place of a `gathering.Gatherer`."""

    def __init__(self) -> None:
        self.gathered, self.hand_offs = np.empty(0, GATHERED), np.empty(0, HAND_OFF)
        self.edges = np.empty(0, GIL_EVENT)
        self._in_order, self._sampled = True, False
        self._until, self._holds = -(1 << 62), 0
        # The tracer's numbers of the stacks at releases: anything, in a file that was damaged.
        self._released = np.empty(0, np.int32)
        self._last_turn: dict[int, int] = {}
        # Of each thread at each GIL: the time and the kind of its first event, and the kind of its last.
        self._first: dict[tuple[int, int], tuple[int, int]] = {}
        self._last: dict[tuple[int, int], int] = {}

    def feed(self, events: Array, *, last: bool = False) -> Array:
        """Return the events of this piece (dtype `GIL_EVENT`) that stay; whether it is the `last` does not matter."""
        if not len(events):
            return events
        self._in_order &= int(events["time"][0]) >= self._until
        self._until = int(events["time"][-1])
        kind = events["kind"]
        stays = kind > Kind.RELEASE
        looks = np.flatnonzero(kind == Kind.SAMPLE)
        self._sampled |= len(looks) > 0
        stays[looks] = (events["arg"][looks] & COLLECTING) != 0
        stays[self._edges(events)] = True
        # Which thread came first and last, whatever it did.
        stays[[0, -1]] = True
        left: Array = events[stays]
        return left

    def _edges(self, events: Array) -> npt.NDArray[np.intp]:
        """Where each thread's first and last events at each GIL are in this piece; what all of them tell is noted."""
        own = np.flatnonzero(events["kind"] <= Kind.RELEASE)
        thread, gil, kind = (events[name][own] for name in ("thread", "gil", "kind"))
        gils = int(gil.max(initial=0)) + 1
        key = thread.astype(np.int64) * gils + gil
        order = stable_order(key, int(key.max(initial=0)) + 1)
        key, kind = key[order], kind[order]
        head = heads(key)
        tail = np.append(head[1:], len(key))[: len(head)] - 1
        before = np.append(np.uint8(0), kind[:-1])[: len(kind)]
        first, last = own[order[head]], own[order[tail]]
        for at, row, end in zip(head.tolist(), events[first].tolist(), kind[tail].tolist(), strict=True):
            time, _, of_thread, of_gil, begin, _, _ = row
            self._first.setdefault((of_thread, of_gil), (time, begin))
            before[at] = self._last.get((of_thread, of_gil), 0)
            self._last[of_thread, of_gil] = end
        self._holds += int(((kind == Kind.ACQUIRE) | ((kind == Kind.RELEASE) & (before != Kind.ACQUIRE))).sum())
        turns = events[own[np.sort(order[kind >= Kind.ACQUIRE])]]
        # Of several values for one index, numpy keeps the last.
        latest = np.full(gils, -1, np.int64)
        latest[turns["gil"]] = turns["time"]
        self._last_turn |= {number: time for number, time in enumerate(latest.tolist()) if time >= 0}
        self._released = distinct(np.append(self._released, turns["stack"][turns["kind"] == Kind.RELEASE]))
        return np.concatenate([first, last])

    def outlined(
        self,
        file: GilFile,
        clock: TickClock | None,
        times: Times,
        numbers: list[int],
        place: npt.NDArray[np.int32],
    ) -> Outlined:
        """What was noted; see there."""
        headless = tuple(sorted(time for time, kind in self._first.values() if kind in _HEADLESS))
        return Outlined(
            file,
            clock,
            times,
            np.array(numbers, np.int64),
            place,
            distinct(placed(self._released, place)),
            self._last_turn,
            headless,
            self._holds,
            self._sampled,
            self._in_order,
        )

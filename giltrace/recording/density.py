"""How much there is of a recording at each time, and how much its threads waited: where a part of it is to be taken.

It is counted while events are gathered, in some thousand bins of equal length.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording.events import Array
from giltrace.recording.layout import Kind

Ints = npt.NDArray[np.int64]

_BINS = 1 << 12
_PIECE = 1 << 20


class Stretch(NamedTuple):
    """The time [start, end) in ns, and which share of all waiting for a GIL lies in it, 0 if nobody waited."""

    start: int
    end: int
    share: float


class PartOf(NamedTuple):
    """A recording from its first instant `start` to its last, `end`, of so many `events`: too many for all of it."""

    start: int
    end: int
    events: int

    def remark(self, start: int, end: int) -> str:
        """What is to be said of figures of [start, end), in ns."""
        first, last = ((time - self.start) / 1e9 for time in (max(start, self.start), end))
        return (
            f"a recording of {self.events / 1e6:,.1f} million events and switches, too many for figures of all: "
            f"they are of {first:.3f} s to {last:.3f} s; --window A..B names another part"
        )


class TooMany(Exception):
    """There are more events than were to be kept; the `density` tells where they are, if all were counted."""

    def __init__(self, density: Density) -> None:
        super().__init__(density.total)
        self.density = density


class Density:
    """Counts a recording that lasted from `start` to `end` (ns); of more than `most` events, no event is kept.

    Unless all are to be counted (`to_the_end`), `TooMany` is raised as soon as there are that many.
    """

    def __init__(self, start: int, end: int, most: int, *, to_the_end: bool = True) -> None:
        self._start, self._width = start, max(-(-(end - start) // _BINS), 1)
        self.most, self._to_the_end = most, to_the_end
        self._events = np.zeros(_BINS, np.int64)
        # The time (ns) that threads waited in the bin in which they began, less that after they had ended in theirs;
        # and how many more there are in the bins after it.
        self._waited, self._more = np.zeros((2, _BINS + 1), np.int64)

    @property
    def total(self) -> int:
        """How many events there are so far, with context switches."""
        return int(self._events.sum())

    @property
    def too_many(self) -> bool:
        """Whether there are more than were to be kept."""
        return self.total > self.most

    def add(self, time: Ints) -> None:
        """Count events of these times, in any order."""
        for at in range(0, len(time), _PIECE):
            self._events += np.bincount(self._bin(time[at : at + _PIECE]), minlength=_BINS)
        if self.too_many and not self._to_the_end:
            raise TooMany(self)

    def add_waits(self, events: Array, led: npt.NDArray[np.bool_]) -> None:
        """Count the waits that begin and end with these events (dtype `GIL_EVENT`): `led` says which had a wait."""
        for some, sign in ((events["kind"] == Kind.REQUEST, 1), (led, -1)):
            time = events["time"][some]
            at = self._bin(time)
            left = self._start + (at + 1) * self._width - time
            self._waited += sign * np.bincount(at, weights=left, minlength=_BINS + 1).astype(np.int64)
            self._more += sign * np.bincount(at + 1, minlength=_BINS + 1)

    def best(self, events: int) -> Stretch:
        """The stretch of at most so many events in which threads waited most; where nobody did, one in the middle.

        Of several it is the earliest. One bin is taken in any case.
        """
        waited = self._waited[:-1] + np.cumsum(self._more)[:-1] * self._width
        until, lost = (np.append(0, np.cumsum(column)) for column in (self._events, np.maximum(waited, 0)))
        first = np.arange(_BINS)
        last = np.maximum(np.searchsorted(until, until[:-1] + events, "right") - 1, first + 1)
        if lost[-1]:
            at = int((lost[last] - lost[first]).argmax())
        else:
            at = min(int(np.searchsorted(until, max(until[-1] - events, 0) // 2)), _BINS - 1)
        start, end = (self._start + edge * self._width for edge in (at, int(last[at])))
        return Stretch(start, end, (lost[last[at]] - lost[at]) / max(lost[-1], 1))

    def _bin(self, time: Ints) -> Ints:
        return np.clip((time - self._start) // self._width, 0, _BINS - 1)

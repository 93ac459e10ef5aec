"""Who sleeps in which lock of the interpreter, out of what a process did since the last time."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.recording.door import MAX_TIME
from giltrace.recording.events import PLACE, Array
from giltrace.recording.layout import Kind, Way
from giltrace.recording.live import Update

#: Of a sleep whose place is not known.
_NOWHERE = np.zeros((), PLACE)


class Sleep(NamedTuple):
    """A thread, by the tracer's number, sleeps since then: in this semaphore, for this lock (0: the semaphore itself).

    `way` is a `layout.Way`. `stack` is the tracer's number of where it stands; `had` are the semaphores that it had
    taken. Both numbers are -1 of what the tracer does not know.
    """

    thread: int
    since: int
    semaphore: int
    lock: int
    way: int
    stack: int
    had: tuple[int, ...]

    @property
    def address(self) -> int:
        """That of the lock, of either kind."""
        return self.lock or self.semaphore

    @property
    def timed(self) -> bool:
        """Whether it sleeps up to some time only."""
        return bool(self.way & Way.TIMED)


class LiveSleeps:
    """Follows one process: who sleeps `now` (by thread), and who did for at least `least_ns`."""

    def __init__(self, least_ns: int = MAX_TIME) -> None:
        self.now: dict[int, Sleep] = {}
        self._least_ns = least_ns

    def take(self, update: Update) -> list[tuple[Sleep, int]]:
        """Take what is new; returns the long sleeps that ended, and when."""
        kind = update.events["kind"]
        told = update.events.compress((kind == Kind.SLEPT) | (kind == Kind.AWOKE) | (kind == Kind.THREAD_END))
        if not len(told):
            return []
        told = told[np.argsort(told["thread"], kind="stable")]
        begins, again = told["kind"] == Kind.SLEPT, told["thread"][1:] == told["thread"][:-1]
        # Who falls asleep anew is up meanwhile, though no record tells since when.
        for thread in told["thread"][begins & ~np.append(False, again)].tolist():
            self.now.pop(thread, None)
        # Of the sleeps that begin and end among these, only the long ones matter.
        at = np.flatnonzero(begins[:-1] & ~begins[1:] & again)
        short = at[told["time"][at + 1] - told["time"][at] < self._least_ns]
        kept = np.ones(len(told), np.bool_)
        kept[short] = kept[short + 1] = False
        had = _had(update.held)
        ended: list[tuple[Sleep, int]] = []
        for row in told[kept]:
            thread, time = int(row["thread"]), int(row["time"])
            before = self.now.pop(thread, None)
            if row["kind"] == Kind.SLEPT:
                place = update.places[row["arg"]] if row["arg"] < len(update.places) else _NOWHERE
                self.now[thread] = Sleep(
                    thread=thread,
                    since=time,
                    semaphore=int(place["semaphore"]),
                    lock=int(place["lock"]),
                    way=int(row["flags"]),
                    stack=int(row["stack"]),
                    had=tuple(had.get((thread, time), ())),
                )
            elif row["kind"] == Kind.AWOKE and before is not None and time - before.since >= self._least_ns:
                ended.append((before, time))
        return ended


def _had(held: Array) -> dict[tuple[int, int], list[int]]:
    found: dict[tuple[int, int], list[int]] = {}
    for time, thread, semaphore in held.tolist():
        found.setdefault((thread, time), []).append(semaphore)
    return found

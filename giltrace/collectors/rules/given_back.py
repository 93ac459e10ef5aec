"""What threads sleep in for want of what another one has to give back: for rules about locks."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.measure.block_causes import GIVEN_BACK, BlockCause, cause_of_frames
from giltrace.recording.layout import Kind, WakeFlag
from giltrace.recording.live import Update
from giltrace.recording.live_file import LiveFile
from giltrace.recording.live_sleeps import Sleep
from giltrace.timeline.blocks import LATE_NS, kind_of
from giltrace.timeline.model import LockKind


class Posts:
    """The last posts of semaphores that threads sleep in: of each when it was, and whether by who had taken it."""

    def __init__(self) -> None:
        self._posts: dict[int, list[tuple[int, bool]]] = {}

    def take(self, update: Update, matter: set[int]) -> None:
        """Take what is new of the semaphores that `matter`: a post may come before its sleeper is up."""
        self._posts = {place: posts for place, posts in self._posts.items() if place in matter}
        posts = update.events[update.events["kind"] == Kind.POSTED]
        places = update.places["semaphore"][posts["arg"]]
        mine = np.isin(places, np.array(sorted(matter), np.uint64))
        for place, row in zip(places[mine].tolist(), posts[mine], strict=True):
            owned = bool(int(row["flags"]) & WakeFlag.OWNED)
            self._posts[place] = [*self._posts.get(place, [])[-7:], (int(row["time"]), owned)]

    def by_owner(self, sleep: Sleep, end: int) -> bool:
        """Whether who ended a sleep had taken that lock, as far as is known."""
        posts = [post for post in self._posts.get(sleep.semaphore, []) if sleep.since <= post[0] <= end + LATE_NS]
        return bool(posts) and max(posts)[1]


def of_a_lock(file: LiveFile, sleep: Sleep, *, owned: bool) -> bool:
    """Whether a thread sleeps in what another one has to give back, and not idly, for work or for an end.

    That is told by the innermost frames, as those of `queue`, `threading` and `concurrent.futures`; of a plain lock by
    who ended the sleep: to wake somebody up, it is released by a thread that had not taken it; `owned`: it had. Where
    locks park threads (from 3.13 on) nobody knows that, and a plain lock counts unless the line calls a queue's `get`.
    """
    kind = kind_of(sleep.way)
    if kind in (LockKind.EVENT, LockKind.WORLD, LockKind.RAW):
        return False
    frames = file.stacks.stack(sleep.stack) if file.stacks is not None else ()
    cause = cause_of_frames([(path, function) for function, path, _ in frames[:6]])
    if cause not in GIVEN_BACK:
        return False
    if cause is not BlockCause.LOCK:
        return True
    if kind is LockKind.PARKED:
        return not frames or not _calls_for_work(frames[0])
    return owned


def _calls_for_work(frame: tuple[str, str, int]) -> bool:
    """Whether a line calls what parks threads that wait, as locks do: a queue or a future in native code."""
    import linecache

    line = linecache.getline(frame[1], frame[2])
    return any(f".{call}(" in line for call in ("get", "put", "result", "join", "wait"))

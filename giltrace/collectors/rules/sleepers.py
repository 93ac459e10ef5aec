"""Who sleeps in which lock of the interpreter, out of what a process did since the last time: for rules about locks."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.analysis.measure.block_causes import GIVEN_BACK, BlockCause, cause_of_frames
from giltrace.recording.events import Array
from giltrace.recording.layout import Kind, Outcome, WakeFlag, Way
from giltrace.recording.live import Update
from giltrace.recording.live_file import LiveFile
from giltrace.timeline.blocks import kind_of
from giltrace.timeline.model import LockKind

#: A post is told so long (ns) after the sleeper is up, at most.
_LATE_NS = 20_000_000


class Sleep(NamedTuple):
    """A thread, by the tracer's number, sleeps since then: in this semaphore, for this lock (0: the semaphore itself).

    `stack` is the tracer's number of where it stands; `had` are the semaphores that it had taken.
    """

    thread: int
    since: int
    semaphore: int
    lock: int
    way: int
    stack: int
    had: tuple[int, ...]

    @property
    def kind(self) -> LockKind:
        """What it sleeps in."""
        return kind_of(self.way)

    @property
    def timed(self) -> bool:
        """Whether it sleeps up to some time only."""
        return bool(self.way & Way.TIMED)


class Slept(NamedTuple):
    """A sleep that has ended; `owned`: who ended it had had that lock, None if nobody is known to have ended it."""

    sleep: Sleep
    end: int
    outcome: Outcome
    owned: bool | None


class Sleepers:
    """Follows one process: who sleeps now (by thread), and who did for at least `least_ns`."""

    def __init__(self, least_ns: int) -> None:
        self.now: dict[int, Sleep] = {}
        self._least_ns = least_ns
        # The last posts: of each semaphore when it was, and whether by who had taken it.
        self._posts: dict[int, list[tuple[int, bool]]] = {}

    def take(self, update: Update, until: int) -> list[Slept]:
        """Take what is new; returns the long sleeps that ended."""
        events = update.events
        kind = events["kind"]
        told = events[(kind == Kind.SLEPT) | (kind == Kind.AWOKE) | (kind == Kind.THREAD_END)]
        told = told[np.argsort(told["thread"], kind="stable")]
        had = _had(update.held)
        ended: list[tuple[Sleep, int, int]] = []
        # Of the sleeps that begin and end among these, only the long ones matter.
        begins = told["kind"] == Kind.SLEPT
        paired = np.zeros(len(told), np.bool_)
        paired[:-1] = begins[:-1] & ~begins[1:] & (told["thread"][1:] == told["thread"][:-1])
        at = np.flatnonzero(paired)
        short = at[told["time"][at + 1] - told["time"][at] < self._least_ns] if len(at) else at
        kept = np.ones(len(told), np.bool_)
        kept[short] = kept[short + 1] = False
        for row in told[kept]:
            thread, time = int(row["thread"]), int(row["time"])
            before = self.now.pop(thread, None)
            if row["kind"] == Kind.SLEPT and int(row["arg"]) < len(update.places):
                place = update.places[int(row["arg"])]
                taken = tuple(had.get((thread, time), ()))
                self.now[thread] = Sleep(
                    thread,
                    time,
                    int(place["semaphore"]),
                    int(place["lock"]),
                    int(row["flags"]),
                    int(row["stack"]),
                    taken,
                )
            elif row["kind"] == Kind.AWOKE and before is not None and time - before.since >= self._least_ns:
                ended.append((before, time, min(int(row["arg"]), Outcome.FAILED)))
        self._keep_posts(update, until, [sleep for sleep, _, _ in ended])
        return [Slept(sleep, end, Outcome(how), self._owned(sleep, end)) for sleep, end, how in ended]

    def _keep_posts(self, update: Update, until: int, ended: list[Sleep]) -> None:
        """Of the semaphores that matter, remember who posted them last: a post may come before its sleeper is up."""
        matters = {sleep.semaphore for sleep in (*self.now.values(), *ended)}
        self._posts = {place: posts for place, posts in self._posts.items() if place in matters}
        posts = update.events[update.events["kind"] == Kind.POSTED]
        posts = posts[posts["arg"] < len(update.places)]
        places = update.places["semaphore"][posts["arg"]]
        mine = np.isin(places, np.array(sorted(matters), np.uint64))
        for place, row in zip(places[mine].tolist(), posts[mine], strict=True):
            owned = bool(int(row["flags"]) & WakeFlag.OWNED)
            self._posts[place] = [*self._posts.get(place, [])[-7:], (int(row["time"]), owned)]

    def _owned(self, sleep: Sleep, end: int) -> bool | None:
        posts = [post for post in self._posts.get(sleep.semaphore, []) if sleep.since <= post[0] <= end + _LATE_NS]
        return max(posts)[1] if posts else None


def _had(held: Array) -> dict[tuple[int, int], list[int]]:
    found: dict[tuple[int, int], list[int]] = {}
    for time, thread, semaphore in held.tolist():
        found.setdefault((thread, time), []).append(semaphore)
    return found


def of_a_lock(file: LiveFile, sleep: Sleep, *, owned: bool) -> bool:
    """Whether a thread sleeps in what another one has to give back, and not idly, for work or for an end.

    That is told by the innermost frames, as those of `queue`, `threading` and `concurrent.futures`; of a plain lock by
    who ended the sleep: to wake somebody up, it is released by a thread that had not taken it; `owned`: it had. Where
    locks park threads (from 3.13 on) nobody knows that, and a plain lock counts unless the line calls a queue's `get`.
    """
    if sleep.kind in (LockKind.EVENT, LockKind.WORLD, LockKind.RAW):
        return False
    frames = file.stacks.stack(sleep.stack) if file.stacks is not None else ()
    cause = cause_of_frames([(path, function) for function, path, _ in frames[:6]])
    if cause not in GIVEN_BACK:
        return False
    if cause is not BlockCause.LOCK:
        return True
    if sleep.kind is LockKind.PARKED:
        return not frames or not _calls_for_work(frames[0])
    return owned


def _calls_for_work(frame: tuple[str, str, int]) -> bool:
    """Whether a line calls what parks threads that wait, as locks do: a queue or a future in native code."""
    import linecache

    line = linecache.getline(frame[1], frame[2])
    return any(f".{call}(" in line for call in ("get", "put", "result", "join", "wait"))

"""Who sleeps in which of the interpreter's locks, as it looks from outside: what began before the tracer came."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from giltrace.launch.attach.names import KnownThread, known_threads
from giltrace.launch.attach.process import Blocked, Process
from giltrace.process.lock_memory import Lock, lock_of, thread_of
from giltrace.process.memory import Memory
from giltrace.recording.layout import Way
from giltrace.recording.sleepers import MOST_FRAMES, MOST_SLEEPERS, Frame, Sleeper

#: The number of the system call, by machine, and of its operations those that wait.
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine(), -1)
_WAITS = (0, 9)
_OPERATION = 0x7F

#: Who sleeps for so long without a line that is known is worth asking for it.
_LONG_NS = 500_000_000


class Place(NamedTuple):
    """Where a thread sleeps: the system call with all its arguments and the stack pointer.

    `turns` is how often the thread has had a core, as text: if that is still so, it slept all the time.
    """

    call: Blocked
    turns: str


def places(process: Process) -> dict[int, Place]:
    """Where each thread of the process sleeps that sleeps in a futex, by its id here; empty where none may be seen."""
    found = {}
    for tid in process.tids()[:MOST_SLEEPERS]:
        with contextlib.suppress(OSError, ValueError):
            blocked = process.blocked(tid)
            if isinstance(blocked, Blocked) and _waits(blocked):
                found[tid] = Place(blocked, process.turns(tid))
    return found


def _waits(blocked: Blocked) -> bool:
    return blocked.number == _FUTEX and blocked.arguments[1] & _OPERATION in _WAITS


class Sleepers:
    """Looks at who sleeps in locks of one process, again and again; what is known of who sleeps on is not read anew.

    Nothing in the process is stopped or changed.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._known: dict[int, tuple[Place, Sleeper | None]] = {}
        self._frames: dict[int, tuple[Blocked, tuple[Frame, ...]]] = {}
        self._asked: set[tuple[int, Place]] = set()
        #: When it looked for the first time.
        self.first_ns = 0

    @property
    def pid(self) -> int:
        """The id here of the process."""
        return self._process.pid

    def learn(self) -> dict[int, KnownThread]:
        """Read what is known of all threads, by their ids here, and keep the stacks of those that sleep on meanwhile.

        A thread that was stopped for a moment sleeps on where it did.
        """
        before = places(self._process)
        threads = known_threads(self._process)
        self._frames = {
            tid: (before[tid].call, one.frames[:MOST_FRAMES]) for tid, one in threads.items() if tid in before
        }
        return threads

    def look(self, *, lines: bool = False) -> list[Sleeper]:
        """Who sleeps in a lock now; empty where that cannot be seen.

        With `lines` it has py-spy read, too, where those stand that have slept for long and are not known to stand
        anywhere: once for each of them.
        """
        if lines:
            self._ask_for_lines()
        try:
            memory = Memory(self._process.pid)
        except OSError:
            return []
        try:
            now = time.monotonic_ns()
            self.first_ns = self.first_ns or now
            self._known = {tid: self._seen(memory, tid, place, now) for tid, place in places(self._process).items()}
        finally:
            memory.close()
        return [sleeper for _, sleeper in self._known.values() if sleeper is not None]

    def _ask_for_lines(self) -> None:
        long = {
            (tid, place)
            for tid, (place, one) in self._known.items()
            if one is not None and not one.frames and one.last_ns - one.seen_ns >= _LONG_NS
        }
        if long - self._asked:
            self._asked = long
            self.learn()

    def _seen(self, memory: Memory, tid: int, place: Place, now: int) -> tuple[Place, Sleeper | None]:
        before, sleeper = self._known.get(tid, (None, None))
        if before != place:
            sleeper = self._found(memory, tid, place, now)
        if sleeper is None:
            return place, None
        where, frames = self._frames.get(tid, (None, ()))
        frames = sleeper.frames or (frames if where == place.call else ())
        return place, replace(sleeper, last_ns=now, frames=frames)

    def _found(self, memory: Memory, tid: int, place: Place, now: int) -> Sleeper | None:
        lock = lock_of(memory, place.call.arguments[0], place.call.rsp)
        try:
            if lock is None or self._process.blocked(tid) != place.call:
                return None
        except OSError:
            return None
        way = (Way.TIMED if place.call.arguments[3] else 0) | (Way.PARKED if lock.lock else 0)
        return Sleeper(
            pid=self._process.pid,
            tid=tid,
            seen_ns=now,
            last_ns=now,
            semaphore=lock.semaphore,
            lock=lock.lock,
            way=int(way | (Way.WITH_ARGUMENT if lock.lock and lock.has_argument else 0)),
            owner=self._owner(memory, lock),
        )

    def _owner(self, memory: Memory, lock: Lock) -> int:
        """The id here of the thread that has taken it, 0 if that is not known."""
        if lock.owner == 0:
            return 0
        here: dict[int, int] = {}
        for tid in self._process.tids():
            with contextlib.suppress(OSError):  # it may have just ended
                own, inside = self._process.ids(tid)
                here[inside] = own
        try:
            return here.get(thread_of(memory, lock.owner, here), 0)
        except OSError:
            return 0


def asleep_now(pid: int) -> list[Sleeper]:
    """Who sleeps in a lock of process `pid` now, and at which line; empty where that cannot be seen."""
    process = Process(pid)
    sleepers = Sleepers(process)
    if places(process):
        sleepers.learn()
    return sleepers.look()


def seen_again(asleep: Sequence[Sleeper], now: Sequence[Sleeper]) -> list[Sleeper]:
    """Those who were `asleep`, with until when they are known to have been, by who sleeps `now` since the same look."""
    still = {(one.tid, one.seen_ns): one.last_ns for one in now}
    return [replace(one, last_ns=still.get((one.tid, one.seen_ns), one.last_ns)) for one in asleep]

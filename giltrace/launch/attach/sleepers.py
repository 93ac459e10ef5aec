"""Who sleeps in which of the interpreter's locks, as it looks from outside: what began before the tracer came."""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from giltrace.launch.attach.process import Blocked, Process
from giltrace.process.lock_memory import Lock, lock_of, thread_of
from giltrace.process.memory import Memory
from giltrace.recording.layout import Way
from giltrace.recording.sleepers import MOST_FRAMES, MOST_SLEEPERS, Frame, Sleeper

#: The number of the system call, by machine, and of its operations those that wait.
_FUTEX = {"x86_64": 202, "aarch64": 98}.get(platform.machine(), -1)
_WAITS = (0, 9)
_OPERATION = 0x7F

#: Where a thread sleeps: the system call with all its arguments, and the stack pointer.
Places = Mapping[int, Blocked]


def places(process: Process) -> dict[int, Blocked]:
    """Where each thread of the process sleeps that sleeps in a futex, by its id here; empty where none may be seen."""
    found = {}
    for tid in process.tids():
        with contextlib.suppress(OSError, ValueError):
            blocked = process.blocked(tid)
            if isinstance(blocked, Blocked) and _waits(blocked):
                found[tid] = blocked
    return dict(list(found.items())[:MOST_SLEEPERS])


def _waits(blocked: Blocked) -> bool:
    return blocked.number == _FUTEX and blocked.arguments[1] & _OPERATION in _WAITS


class Sleepers:
    """Looks at who sleeps in locks of one process, again and again; what is known of who sleeps on is not read anew.

    Nothing in the process is stopped or changed.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self._known: dict[int, tuple[Blocked, Sleeper | None]] = {}
        self._frames: dict[int, tuple[Blocked, tuple[Frame, ...]]] = {}

    def learn(self, stacks: Mapping[int, tuple[Frame, ...]], before: Places) -> None:
        """Take the Python stacks of threads, by id here, that were read while these slept where they slept `before`."""
        self._frames = {tid: (before[tid], frames[:MOST_FRAMES]) for tid, frames in stacks.items() if tid in before}

    def look(self) -> list[Sleeper]:
        """Who sleeps in a lock now; empty where that cannot be seen."""
        try:
            memory = Memory(self._process.pid)
        except OSError:
            return []
        try:
            now = time.monotonic_ns()
            self._known = {tid: self._seen(memory, tid, place, now) for tid, place in places(self._process).items()}
        finally:
            memory.close()
        return [sleeper for _, sleeper in self._known.values() if sleeper is not None]

    def _seen(self, memory: Memory, tid: int, place: Blocked, now: int) -> tuple[Blocked, Sleeper | None]:
        before, sleeper = self._known.get(tid, (None, None))
        if before != place:
            sleeper = self._found(memory, tid, place, now)
        elif sleeper is not None:
            sleeper = replace(sleeper, last_ns=now)
        return place, sleeper

    def _found(self, memory: Memory, tid: int, place: Blocked, now: int) -> Sleeper | None:
        lock = lock_of(memory, place.arguments[0], place.rsp)
        try:
            if lock is None or self._process.blocked(tid) != place:
                return None
        except OSError:
            return None
        where, frames = self._frames.get(tid, (None, ()))
        way = (Way.TIMED if place.arguments[3] else 0) | (Way.PARKED if lock.lock else 0)
        # A queue is no lock that one has and gives to the next.
        given = lock.has_argument and not lock.type.endswith("Queue")
        return Sleeper(
            pid=self._process.pid,
            tid=tid,
            seen_ns=now,
            last_ns=now,
            semaphore=lock.semaphore,
            lock=lock.lock,
            way=int(way | (Way.WITH_ARGUMENT if given else 0)),
            owner=self._owner(memory, lock),
            frames=frames if where == place else (),
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


def seen_again(asleep: Sequence[Sleeper], now: Sequence[Sleeper]) -> list[Sleeper]:
    """Those who were `asleep`, with until when they are known to have been, by who sleeps `now` since the same look."""
    still = {(one.tid, one.seen_ns): one.last_ns for one in now}
    return [replace(one, last_ns=still.get((one.tid, one.seen_ns), one.last_ns)) for one in asleep]

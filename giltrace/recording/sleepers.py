"""Threads that were found asleep in a lock from outside: no record of the tracer's tells of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from giltrace.recording.door import MAX_ID, MAX_TIME, is_int

#: A frame's function, file and line.
Frame = tuple[str, str, int]
#: More threads are not told of, and so many frames of each.
MOST_SLEEPERS, MOST_FRAMES = 4_096, 256
_MOST_ADDRESS, _MOST_LINE = (1 << 64) - 1, (1 << 31) - 1


@dataclass(frozen=True)
class Sleeper:
    """Thread `tid` of process `pid`, both ids as seen here, asleep from `seen_ns` to `last_ns` at least.

    That is the time of a look at it and that of the last one at which it still slept so (CLOCK_MONOTONIC ns). It
    sleeps in the `semaphore` at that address, parked for the `lock` at that one: 0 where the semaphore is the lock.
    `way` is a `layout.Way`. `owner` is the id of the thread that has the lock, 0 where that is not known. `frames` is
    its Python stack, innermost first; empty if not known.
    """

    pid: int
    tid: int
    seen_ns: int
    last_ns: int
    semaphore: int
    lock: int
    way: int
    owner: int
    frames: tuple[Frame, ...] = ()

    @property
    def address(self) -> int:
        """That of the lock, of either kind."""
        return self.lock or self.semaphore

    @classmethod
    def of_json(cls, value: dict[str, object]) -> Sleeper:
        """What `is_sleeper` accepts."""
        frames = value.get("frames", [])
        assert isinstance(frames, list)
        return cls(**{**value, "frames": tuple(map(tuple, frames))})  # type: ignore[arg-type]


class Look(NamedTuple):
    """Who is `asleep` in a process by a look at it from outside; `first_ns` is when it was looked at first."""

    first_ns: int
    asleep: Sequence[Sleeper]


_FIELDS = {
    "pid": lambda one: is_int(one, 1, MAX_ID),
    "tid": lambda one: is_int(one, 1, MAX_ID),
    "seen_ns": lambda one: is_int(one, 0, MAX_TIME),
    "last_ns": lambda one: is_int(one, 0, MAX_TIME),
    "semaphore": lambda one: is_int(one, 1, _MOST_ADDRESS),
    "lock": lambda one: is_int(one, 0, _MOST_ADDRESS),
    "way": lambda one: is_int(one, 0, 31),
    "owner": lambda one: is_int(one, 0, MAX_ID),
    "frames": lambda one: isinstance(one, list) and len(one) <= MOST_FRAMES and all(map(_is_frame, one)),
}


def is_sleeper(value: object) -> bool:
    """Whether what was read as JSON is a `Sleeper`."""
    return (
        isinstance(value, dict) and value.keys() == _FIELDS.keys() and all(_FIELDS[name](value[name]) for name in value)
    )


def _is_frame(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 3
        and all(isinstance(text, str) for text in value[:2])
        and is_int(value[2], 0, _MOST_LINE)
    )

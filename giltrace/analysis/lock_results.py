"""What the analyses find of the time that threads were without the GIL, and of locks; see `analysis.results`."""

from __future__ import annotations

from dataclasses import dataclass

from giltrace.analysis.site import Site

#: What threads sleep in, or are asleep for where that is told, in words, by cause.
CAUSE_TEXT = {
    "lock": "in a lock",
    "condition": "for a condition",
    "event": "for an event",
    "barrier": "at a barrier",
    "semaphore": "for a semaphore",
    "queue": "for a queue",
    "join": "for a thread's end",
    "start": "for a thread's start",
    "future": "for a future",
    "import-lock": "for an import",
    "logging-lock": "in logging's lock",
    "process-lock": "in a shared lock",
    "object-lock": "in an object's lock",
    "stop-the-world": "stopped by another",
    "other-lock": "in Python's own lock",
    "sleep": "in a sleep",
    "ready-io": "for I/O to be ready",
    "socket": "for a socket",
    "process-queue": "for a shared queue",
    "process-message": "for another process",
    "process-end": "for a process's end",
}
_DOING_TEXT = {
    "asleep": "asleep or in I/O",
    "native": "in native code",
    "no-core": "ready, but no core",
    "off": "off the GIL",
}


@dataclass(frozen=True)
class Whereabouts:
    """Where threads were without the GIL, for `ns` in all.

    `doing` is "lock", "asleep" (in the kernel: I/O, a sleep), "native" (ran native code), "no-core" (could have gone
    on) or "off" (which of these is not known without scheduling data); `cause` is what lock it was (`BlockCause`), or
    what it was asleep for, where that is told (`AsleepCause`), else empty.
    """

    site: Site
    doing: str
    cause: str
    ns: int


@dataclass(frozen=True)
class Meanwhile:
    """What a thread did for `ns` while others waited for what it had: `doing` (as of `Whereabouts`, or "python" with
    the GIL, "asleep-with-gil", "waiting" for it) and `cause`, at `site`.
    """

    site: Site
    doing: str
    cause: str
    ns: int


@dataclass(frozen=True)
class LockBlame:
    """Threads at the line `victim` were blocked, and woken by the line `waker` (None if nobody is known to have).

    In `blocks` blocks they lost `ns`, `max_ns` in the longest, by a `cause` (`BlockCause`), in these `locks` (numbers
    from 1, as in traces; of the costliest rows, and at most 100 of each). What those did `meanwhile` that had, or were
    to bring, what was waited for, is told of the costliest rows: most first. Without the locks of the costliest row the
    process would be at most `speedup_bound` times as fast; 0 where that is not worked out. `objects` are the types of
    the objects that the locks belong to, as far as that is known.
    """

    victim: Site
    waker: Site | None
    cause: str
    locks: tuple[int, ...]
    ns: int
    blocks: int
    max_ns: int
    meanwhile: tuple[Meanwhile, ...] = ()
    speedup_bound: float = 0.0
    objects: tuple[str, ...] = ()


@dataclass(frozen=True)
class OnPath:
    """What the end of a process hung on for `ns`: `doing` (as of `Meanwhile`) and `cause`, at `site`.

    Without it the whole would take at most so much less.
    """

    site: Site
    doing: str
    cause: str
    ns: int


def without_text(doing: str, cause: str) -> str:
    """What a thread did without the GIL, and what for, in words: both as of `Whereabouts`."""
    return CAUSE_TEXT.get(cause, "") or _DOING_TEXT[doing]

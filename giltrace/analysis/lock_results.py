"""What the analyses find of the time that threads were without the GIL, and of locks; see `analysis.results`."""

from __future__ import annotations

from dataclasses import dataclass

from giltrace.analysis.site import Site


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
    the GIL, "waiting" for it) and `cause`, at `site`.
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

"""What the counters of one process said at one instant. All times are nanoseconds; all counts only ever grow.

A tracer that counts adds up in the process what one that records would write down, so each figure here is what a
recording of the same time would say: `Counts.held_ns` is the sum of its holds, and so on. Holds, waits and blocks that
are under way are counted, up to the instant, in the times, and not yet in the numbers and histograms. How long they
went on when their process ended is not known: its last words have not got them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from operator import add

#: Bucket i of a histogram counts what took less than 2**(i + LOWEST) s, and no less than half of that; the first also
#: counts all that is shorter, the last all that is longer.
BUCKETS = 32
LOWEST = -23


def upper_bounds() -> tuple[float, ...]:
    """The upper bound of each bucket, in seconds; that of the last is infinite."""
    return (*(2.0 ** (bucket + LOWEST) for bucket in range(BUCKETS - 1)), float("inf"))


Histogram = tuple[int, ...]
NOTHING: Histogram = (0,) * BUCKETS


@dataclass(frozen=True)
class Counts:
    """Of one or more threads."""

    holds: int = 0  #: of the GIL, that have ended
    held_ns: int = 0
    waits: int = 0  #: for the GIL, that have ended
    waited_ns: int = 0
    forced: int = 0  #: releases because another thread asked for the GIL
    requests: int = 0  #: that a thread whose wait took longer than the switch interval made
    blocks: int = 0  #: sleeps in the interpreter's own locks that have ended
    blocked_ns: int = 0
    longest_hold_ns: int = 0  #: since somebody last read with `reset_longest`
    longest_wait_ns: int = 0
    hold_lengths: Histogram = NOTHING
    wait_lengths: Histogram = NOTHING
    block_lengths: Histogram = NOTHING

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.holds + other.holds,
            self.held_ns + other.held_ns,
            self.waits + other.waits,
            self.waited_ns + other.waited_ns,
            self.forced + other.forced,
            self.requests + other.requests,
            self.blocks + other.blocks,
            self.blocked_ns + other.blocked_ns,
            max(self.longest_hold_ns, other.longest_hold_ns),
            max(self.longest_wait_ns, other.longest_wait_ns),
            tuple(map(add, self.hold_lengths, other.hold_lengths)),
            tuple(map(add, self.wait_lengths, other.wait_lengths)),
            tuple(map(add, self.block_lengths, other.block_lengths)),
        )

    def since(self, before: Counts) -> Counts:
        """What was added since `before`, and no less than nothing; what is longest stays as it is."""
        left: dict[str, int | Histogram] = {}
        for field in fields(self):
            mine, others = getattr(self, field.name), getattr(before, field.name)
            if isinstance(mine, tuple):
                left[field.name] = tuple(max(one - more, 0) for one, more in zip(mine, others, strict=True))
            elif not field.name.startswith("longest"):
                left[field.name] = max(mine - others, 0)
        return replace(self, **left)  # type: ignore[arg-type]


@dataclass(frozen=True)
class ThreadReading:
    """One thread that lives."""

    tid: int
    name: str
    role: str
    counts: Counts
    holding: bool  #: the GIL, at this instant
    waiting: bool  #: for the GIL
    blocked: bool  #: asleep in a lock


#: The number of the main interpreter's GIL: the only one, but where interpreters have one each (3.12 and later).
MAIN_GIL = "0"


@dataclass(frozen=True)
class RoleReading:
    """What all threads of one role (whose names differ in numbers only), those that have ended too, did with one GIL.

    A thread that lives is counted at the GIL that it used last.
    """

    role: str
    threads: int  #: that live
    counts: Counts
    gil: str = MAIN_GIL

    @property
    def key(self) -> RoleKey:
        """What tells it from others."""
        return self.role, self.gil


#: A role and the number of a GIL.
RoleKey = tuple[str, str]


#: File, line and function of a line, and whether it collects garbage.
LineKey = tuple[str, int, str, bool]


@dataclass(frozen=True)
class LineReading:
    """A line of the program, and the time that is on its account.

    The time is too large by at most `error_ns`: only so many lines are kept apart.
    """

    file: str
    line: int
    function: str
    ns: int
    error_ns: int
    times: int  #: how often: samples, waits or blocks
    collecting: bool = False  #: it was collecting garbage

    @property
    def key(self) -> LineKey:
        """What tells it from others."""
        return self.file, self.line, self.function, self.collecting

    @property
    def place(self) -> str:
        """The name that labels use: "app.py:12"; for a thread that was in no Python function "(no Python code)"."""
        return f"{self.file}:{self.line}" if self.file else "(no Python code)"


@dataclass(frozen=True)
class CauseReading:
    """Sleeps in locks, by what was waited for: "queue", "lock", ... (the labels of `analysis.BlockCause`)."""

    cause: str
    blocks: int
    blocked_ns: int
    error_ns: int  #: by which the time may be too large


#: Time that no line of culprits, victims and sleepers could be named for: another thread was just writing there.
Unnamed = tuple[int, int, int]


@dataclass(frozen=True)
class ProcessReading:
    """One process, since its counters began."""

    pid: int
    command: str  #: its command line, made visible
    python: str  #: "3.12.3"
    free_threaded: bool
    started_ns: int  #: of CLOCK_MONOTONIC: when the counters began
    at_ns: int  #: of CLOCK_MONOTONIC: of this reading
    roles: tuple[RoleReading, ...]
    threads: tuple[ThreadReading, ...]
    culprits: tuple[LineReading, ...]  #: lines that had the GIL while others waited; sampled, each instant once
    victims: tuple[LineReading, ...]  #: lines that waited for the GIL; exact
    blocked: tuple[LineReading, ...]  #: lines that slept in locks; exact
    causes: tuple[CauseReading, ...]
    lost: int = 0  #: threads that found no room to count in
    unnamed_ns: Unnamed = (0, 0, 0)
    note: str = ""  #: why something is missing, if so
    moved: frozenset[str] = frozenset()  #: GILs that were taken or given up, if only by threads that have no names yet
    ended: bool = False  #: the process has ended, or executes another program now: these are its last words

    @property
    def counts(self) -> Counts:
        """Of all threads together."""
        return total(role.counts for role in self.roles)

    @property
    def seconds(self) -> float:
        """Since the counters began."""
        return (self.at_ns - self.started_ns) / 1e9


def of_gils(roles: Iterable[RoleReading]) -> dict[str, Counts]:
    """What was done with each GIL, by its number."""
    together: dict[str, Counts] = {}
    for role in roles:
        together[role.gil] = together.get(role.gil, Counts()) + role.counts
    return together


def total(counts: Iterable[Counts]) -> Counts:
    """The sum of some counts."""
    together = Counts()
    for one in counts:
        together += one
    return together

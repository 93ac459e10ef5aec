"""What the live view shows at one moment. Times are nanoseconds; shares are of the span that is looked at, 0 to 1."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

#: What the graph covers, and how much one of its columns does.
MINUTE_NS = 60_000_000_000
BUCKET_NS = 500_000_000


class ThreadState(str, Enum):
    """What a thread does. The kernel's word is asked for only where it neither holds nor waits."""

    HOLDING = "holding"  #: has the GIL
    WAITING = "waiting"  #: wants the GIL
    RUNNING = "running"  #: off the GIL, on a core or ready for one
    LOCKED = "in lock"  #: off the GIL, asleep in one of the interpreter's locks: also for a queue, an event, a thread
    BLOCKED = "blocked"  #: off the GIL, asleep otherwise: I/O, a sleep
    OFF = "off"  #: off the GIL; more is not known
    ENDED = "ended"  #: is no more


class Sort(str, Enum):
    """What the threads are sorted by."""

    WAITING = "waiting"
    HELD = "held"
    WORST = "worst"
    NAME = "name"

    def next(self) -> Sort:
        """The one that comes after this one."""
        every = list(Sort)
        return every[(every.index(self) + 1) % len(every)]


@dataclass(frozen=True)
class Line:
    """A line of Python; an empty `function` is one that is not known."""

    function: str = ""
    file: str = ""
    number: int = 0

    def __str__(self) -> str:
        number = f":{self.number}" if self.number > 0 else ""
        return f"{self.function} ({self.file.rpartition('/')[2]}{number})" if self.function else ""


@dataclass(frozen=True)
class ThreadRow:
    """One thread: `ident` tells it apart; `worst_ns` is its longest wait; `core` is -1 if unknown.

    `line` is the newest known: where it stood when it last gave the GIL up, or was read while it holds it. `own_line`
    is the line of the user's own code that led to it: itself where there is none.
    """

    ident: int
    pid: int
    tid: int
    name: str
    state: ThreadState
    held: float
    waiting: float
    worst_ns: int
    holds: int
    waits: int
    forced: int
    core: int
    line: Line
    own_line: Line = Line()


@dataclass(frozen=True)
class Culprit:
    """A line whose holds others waited for: how long in all, and per time (`cost`; above 1 if several waited).

    `own_line` is the line of the user's own code that led to it: itself where there is none.
    """

    line: Line
    cost_ns: int
    cost: float
    worst_ns: int
    own_line: Line = Line()


@dataclass(frozen=True)
class ProcessRow:
    """One process that is followed. `note` says why nothing was recorded of it, if so."""

    pid: int
    cmdline: str
    python: str
    gils: int
    note: str


@dataclass(frozen=True)
class StuckThread:
    """A thread that sleeps in the lock at an address, `at` a line in words; `waits_for` is the tid of who has it.

    That is None where it is not known.
    """

    tid: int
    name: str
    at: str
    lock: int
    waits_for: int | None


@dataclass(frozen=True)
class Deadlock:
    """Threads of a process that wait for each other, or, if not `certain`, may.

    They have for `for_ns`; None: since before giltrace came. `told` says so in a sentence, and `advice` what to do.
    """

    pid: int
    certain: bool
    for_ns: int | None
    threads: tuple[StuckThread, ...]
    told: str
    advice: str


@dataclass(frozen=True)
class Graph:
    """Shares per bucket, oldest first: of the busiest GIL if there are several."""

    held: tuple[float, ...]
    contended: tuple[float, ...]


@dataclass(frozen=True)
class Snapshot:
    """All that is shown. `held` and `contended` are of the busiest GIL, `waiting` is how many threads wait on average.

    `span_ns` is what the figures cover: the one asked for and up to a bucket more, or less if less was seen.
    `more_threads` were left out.
    """

    at_ns: int
    span_ns: int
    processes: tuple[ProcessRow, ...]
    gils: int
    graph: Graph
    held: float
    contended: float
    waiting: float
    worst_ns: int
    acquires: int
    forced: int
    threads: tuple[ThreadRow, ...]
    more_threads: int
    culprits: tuple[Culprit, ...]
    lost: int
    missed: int
    lost_stacks: int = 0
    deadlocks: tuple[Deadlock, ...] = ()


@dataclass(frozen=True)
class Detail:
    """One thread, looked at closely: its newest stack (innermost first), its last minute, and whom it waited for."""

    row: ThreadRow
    stack: tuple[Line, ...]
    graph: Graph
    culprits: tuple[Culprit, ...]

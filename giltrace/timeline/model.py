"""The timeline: who held, wanted or did without the GIL, and on which core, at every instant.

All times are CLOCK_MONOTONIC nanoseconds in int64; all intervals are half open, ``[start, end)``.
Arrays are numpy record arrays; `thread` indexes `Process.threads` everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording.collected import CollectorReport
from giltrace.recording.density import PartOf
from giltrace.recording.events import HAND_OFF, NativeCode, Outlined, Sampling, Spans, StackTable
from giltrace.recording.merged import Merged
from giltrace.recording.trigger import Trigger
from giltrace.timeline.remarks import remarks_of

Array = npt.NDArray[np.void]
Bools = npt.NDArray[np.bool_]

#: What came to its end when a process's time on record did.
EndOf = Literal["process", "recording", "window"]


class State(IntEnum):
    """Exactly one of these holds for each thread at each instant of its life."""

    HOLDING_RUNNING = 0
    HOLDING_RUNNABLE = 1
    HOLDING_BLOCKED = 2
    WAITING = 3
    OFF_RUNNING = 4
    OFF_RUNNABLE = 5
    OFF_BLOCKED = 6

    @property
    def label(self) -> str:
        """The name that reports and JSON use: "holding-running"."""
        return self.name.lower().replace("_", "-")


class Flag(IntFlag):
    """Marks on holds and waits."""

    FORCED = 1  #: the hold ended because another thread's switch request made the eval loop yield
    PARTIAL_START = 2  #: began before the first record
    PARTIAL_END = 4  #: had not ended at the last record


class BlockEnd(IntEnum):
    """How a block ended: the first four as `recording.layout.Outcome`."""

    WOKEN = 0
    TIMED_OUT = 1
    INTERRUPTED = 2
    FAILED = 3
    OPEN = 4  #: it had not ended at the thread's end on record

    @property
    def label(self) -> str:
        """The name that reports and JSON use: "timed-out"."""
        return self.name.lower().replace("_", "-")


class LockKind(IntEnum):
    """What a thread sleeps in."""

    SEMAPHORE = 0  #: a lock that is a semaphore
    PARKED = 1  #: one that parks those that wait, as a PyMutex does: also the lock of an object
    EVENT = 2  #: likewise, of what is not given from one to the next: the end of a thread, a queue
    WORLD = 3  #: likewise, until a stopped world goes on
    RAW = 4  #: what guards the lists of parked threads

    @property
    def label(self) -> str:
        """The name that data sets use."""
        return self.name.lower()


#: A hold: acquire to release by one thread. `core` is the core at the acquire, -1 if unknown.
HOLD = np.dtype([("start", "<i8"), ("end", "<i8"), ("thread", "<u4"), ("gil", "<u2"), ("core", "<i2"), ("flags", "u1")])

#: A wait of non-zero length: request to acquire. `timeouts` counts its timed waits that ran out. `hold`
#: indexes the hold that it led to, -1 if none.
WAIT = np.dtype(
    [
        ("start", "<i8"),
        ("end", "<i8"),
        ("thread", "<u4"),
        ("gil", "<u2"),
        ("timeouts", "<u4"),
        ("hold", "<i8"),
        ("flags", "u1"),
    ]
)

#: A switch request: `thread` asked the holder of `gil` to drop it.
SWITCH_REQUEST = np.dtype([("time", "<i8"), ("thread", "<u4"), ("gil", "<u2")])

#: `hold` stands for `count` quiet holds (`recording.gathering`), the `longest` of them so long, from which the GIL went
#: to another thread `hand_offs` times; `before` is the stack at the release before each of them, -1 if unknown.
GATHERED = np.dtype([("hold", "<i8"), ("count", "<i8"), ("longest", "<i8"), ("hand_offs", "<i8"), ("before", "<i4")])

#: A look at what the holder of `gil` did, by `thread`, which waited for it: at instants that do not depend on events.
SAMPLE = np.dtype([("time", "<i8"), ("thread", "<u4"), ("gil", "<u2"), ("collecting", "u1")])

#: A block: `thread` slept in `lock` (numbers `Process.locks`), at most until a time if `timed`. It `ended` (a
#: `BlockEnd`) by what `waker` did at `woken`; -1 and `end` where that is not known or nobody did. It was `owned` if the
#: waker had had the lock itself: else it was made to wake somebody up.
BLOCK = np.dtype(
    [
        ("start", "<i8"),
        ("end", "<i8"),
        ("thread", "<u4"),
        ("lock", "<i4"),
        ("waker", "<i4"),
        ("woken", "<i8"),
        ("ended", "u1"),
        ("timed", "u1"),
        ("owned", "u1"),
    ]
)

#: A lock that somebody slept in: its address, and a `LockKind`. Of one kind, what is made there anew is the same here.
LOCK = np.dtype([("address", "<u8"), ("kind", "u1")])

#: At `block` (a number into `Process.blocks`) its thread had taken `lock`, and not given it back.
HELD_LOCK = np.dtype([("block", "<i8"), ("lock", "<i4")])

#: From `start` on, until the same GIL's next row, timed waits for `gil` asked the holder to drop it after `ns`.
SWITCH_INTERVAL = np.dtype([("start", "<i8"), ("gil", "<u2"), ("ns", "<i8")])

#: A stretch of running on one core. `preempted` is 1 if the thread could have gone on when it was taken off.
RUN = np.dtype([("start", "<i8"), ("end", "<i8"), ("thread", "<u4"), ("core", "<i2"), ("preempted", "u1")])

#: A time at which giltrace had a thread stopped.
STOP = np.dtype([("start", "<i8"), ("end", "<i8"), ("thread", "<u4")])

#: A stretch in one `State`; per thread they tile its lifetime without gap or overlap.
STATE = np.dtype([("start", "<i8"), ("end", "<i8"), ("thread", "<u4"), ("state", "u1")])


@dataclass(frozen=True)
class Stacks:
    """Which Python stack belongs to what: numbers into `table`, int32, -1 where none is known.

    `hold_begin` and `hold_end` (one per hold) are exact: the holder's own stack at its acquire and at its release.
    `wait` (one per wait) is exact too: where the waiter waited; so are `block` and `wake` (one per block): where the
    blocked thread stood, and its waker. `request` (one per switch request) is a sample: the
    holder's stack as the waiter read it when its timed wait ran out. `sample` (one per sample) likewise.
    """

    table: StackTable
    hold_begin: npt.NDArray[np.int32]
    hold_end: npt.NDArray[np.int32]
    wait: npt.NDArray[np.int32]
    request: npt.NDArray[np.int32]
    sample: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    block: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    wake: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))


class Thread(NamedTuple):
    """One thread that lived in a traced process; it need not ever have touched a GIL."""

    tid: int
    name: str
    start: int
    end: int
    lost: int = 0


class Cores(NamedTuple):
    """How much of the machine a process might use: it might run on `cpus` cores.

    `quota` is how many cores' worth of time it was granted in each period, by its cgroup; None for all that it can use.
    """

    cpus: int
    quota: float | None = None

    @property
    def at_once(self) -> int:
        """How many of its threads can run at a time without being stopped for it later."""
        return self.cpus if self.quota is None else min(self.cpus, max(1, math.ceil(self.quota)))


class Host(NamedTuple):
    """One of the machines of a recording of several: its name and what it is, with the keys of `Timeline.machine`.

    `offset_ns` was added to the times on its clock; they are those of the recording up to `error_ns`.
    """

    name: str
    machine: dict[str, str | int]
    offset_ns: int
    error_ns: int


class Member(NamedTuple):
    """Where a process of several machines ran: `host` numbers `Timeline.hosts`, `pid` is its id there.

    `worker` is what the cluster calls it and `address` where it is reached; empty for a process that one started.
    """

    host: int
    worker: str
    address: str
    pid: int

    def __str__(self) -> str:
        return self.worker


@dataclass(frozen=True)
class Process:
    """One program image of one process.

    `holds` (dtype `HOLD`) and `waits` (dtype `WAIT`) are sorted by start. `runs` (dtype `RUN`) and `states` (dtype
    `STATE`) are sorted by (thread, start) and empty without scheduling data (`has_sched` False). `gils` is the number
    of distinct GILs. `violations` lists broken invariants in words; `lost` counts lost GIL events, `lost_stacks` those
    whose stack was lost, and `overwritten` those before `start` that a flight recorder had no room for.
    `switch_intervals` (dtype `SWITCH_INTERVAL`, sorted by start) has a row where a GIL's interval was first seen and
    one wherever it changed; none for a GIL that nobody waited for. `sampling` is None if what it holds is exact; else
    it says how far it can be trusted. `became` is the program that was executed in its place, "" if none was or that
    was Python: a process of its own. It is `end_known` if somebody saw it run up to its `end`.
    `stops` (dtype `STOP`) are the times at which giltrace itself kept a thread from going on; `left` tells that it came
    to the process and left it while that ran. `samples` (dtype `SAMPLE`, sorted by time) are looks at the holders.
    It is `unused` if it is known that its GILs were free all the time. `chosen` (one per thread) are the threads that
    are asked about, None for all: what they waited and held is told, and whoever made them wait. `cores` is how much of
    the machine it might use, None if that was not recorded. `end` is the end of the process, or that of the recording
    or of the window which it outlived: `end_of`. `native_code` has the samples of what native code threads ran, those
    of the other processes too. `gathered` (dtype `GATHERED`, sorted by hold) are the holds that stand for several, none
    unless they were to be; `passed` (dtype `recording.events.HAND_OFF`) how long the hand-offs between those took.
    `blocks` (dtype `BLOCK`, sorted by start) are the times that threads slept in one of the interpreter's own `locks`
    (dtype `LOCK`), `held` (dtype `HELD_LOCK`) what they had taken then. `lock_types` (one per lock, or none at all) are
    those of the objects that the locks belong to, empty where that is not known. `free_threaded`: the interpreter can
    do without a GIL.
    Of one that is to be read in windows (`timeline.windows`), `outlined` says how; `dealt` (one per hold) are the
    stacks that its holds share in, -1 for none. `member` is its place in a recording of several machines.
    `known` has what was worked out of it, for `timeline.once`; a process that is made from this one begins with none.
    """

    pid: int
    ppid: int
    python: str
    cmdline: str
    start: int
    end: int
    threads: tuple[Thread, ...]
    gils: int
    holds: Array
    waits: Array
    switch_requests: Array
    runs: Array
    states: Array
    has_sched: bool
    spans: tuple[Spans, ...] = ()
    violations: tuple[str, ...] = ()
    lost: int = 0
    note: str = ""
    stacks: Stacks | None = None
    overwritten: int = 0
    switch_intervals: Array = field(default_factory=lambda: np.empty(0, SWITCH_INTERVAL))
    sampling: Sampling | None = None
    lost_stacks: int = 0
    became: str = ""
    stops: Array = field(default_factory=lambda: np.empty(0, STOP))
    left: bool = False
    samples: Array = field(default_factory=lambda: np.empty(0, SAMPLE))
    unused: bool = False
    chosen: Bools | None = None
    cores: Cores | None = None
    end_of: EndOf = "process"
    end_known: bool = False
    native_code: NativeCode = field(default_factory=NativeCode)
    gathered: Array = field(default_factory=lambda: np.empty(0, GATHERED))
    passed: Array = field(default_factory=lambda: np.empty(0, HAND_OFF))
    blocks: Array = field(default_factory=lambda: np.empty(0, BLOCK))
    locks: Array = field(default_factory=lambda: np.empty(0, LOCK))
    held: Array = field(default_factory=lambda: np.empty(0, HELD_LOCK))
    free_threaded: bool = False
    lock_types: tuple[str, ...] = ()
    member: Member | None = None
    outlined: Outlined | None = None
    dealt: npt.NDArray[np.int32] | None = None
    known: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of_chosen(self, rows: Array) -> Bools:
        """Which of `rows`, each of a `thread`, are those of threads that are asked about."""
        if self.chosen is None:
            return np.ones(len(rows), np.bool_)
        found: Bools = self.chosen[rows["thread"]]
        return found

    @property
    def is_bounded(self) -> bool:
        """Whether it ran, and a thread held its GIL, for at least as long as is told here: nobody saw its end."""
        known = self.has_sched or self.end_known or self.sampling is not None or self.end_of == "window"
        last = self.holds["flags"][self.holds["end"] == self.end]
        return not known and bool((last & np.uint8(Flag.PARTIAL_END)).any())

    @property
    def chosen_threads(self) -> list[int]:
        """The numbers of the threads that are asked about."""
        return list(range(len(self.threads))) if self.chosen is None else np.flatnonzero(self.chosen).tolist()


class OtherTask(NamedTuple):
    """A thread of a process that is not Python, or was not traced: known from its context switches only."""

    pid: int
    tid: int
    name: str


class Cut(NamedTuple):
    """What `timeline.cut.cut` did: the stretches (start, end) that are `kept`, sorted and disjoint, of what was
    `recorded` from its first to its last instant; and how many holds, waits, runs and spans were left out.
    """

    kept: tuple[tuple[int, int], ...]
    recorded: tuple[int, int]
    holds: int = 0
    waits: int = 0
    runs: int = 0
    spans: int = 0

    @property
    def left_out(self) -> tuple[tuple[int, int], ...]:
        """The stretches (start, end) that are not kept, sorted and disjoint, none empty."""
        first, last = self.recorded
        edges = [first, *(edge for stretch in self.kept for edge in stretch), last]
        return tuple((start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end)


@dataclass(frozen=True)
class Timeline:
    """Everything known about one recording, or about what is left of it after a `cut`.

    `other_runs` has dtype `RUN`, its `thread` indexing `other_tasks`. `realtime_offset` is CLOCK_REALTIME minus
    CLOCK_MONOTONIC and `boottime_offset` CLOCK_BOOTTIME minus CLOCK_MONOTONIC, in ns. `machine` has the
    keys sysname, release, version, machine (as `os.uname`) and cpus (int). `trigger` is why a flight recorder wrote it.
    `unfinished`: its recorder did not end it. `damage` says in words what of it could not be read. `part` says in words
    which part of the recording it is, empty for all of it. `whole_run`: what was recorded is a program, from its start
    to its end, so that the length says how long that took. `merged` are the spans of other profilers' files. `ended`:
    why recording ended before the program did. `hosts` are the machines, where there are several; `part_of` is all
    of it where it is what fits into memory.
    """

    processes: tuple[Process, ...]
    start: int
    end: int
    other_tasks: tuple[OtherTask, ...]
    other_runs: Array
    realtime_offset: int
    boottime_offset: int
    clock_error_ns: int
    machine: dict[str, str | int]
    collectors: tuple[CollectorReport, ...] = ()
    sched_lost: int = 0
    trigger: Trigger | None = None
    unfinished: bool = False
    damage: tuple[str, ...] = ()
    cut: Cut | None = None
    part: tuple[str, ...] = ()
    whole_run: bool = False
    merged: tuple[Merged, ...] = ()
    ended: str = ""
    hosts: tuple[Host, ...] = ()
    part_of: PartOf | None = None

    def machine_of(self, process: Process) -> dict[str, str | int]:
        """The machine that a process ran on."""
        return self.machine if process.member is None else self.hosts[process.member.host].machine

    @property
    def recorded(self) -> tuple[int, int]:
        """The first and the last instant of which something is on record, where its trace begins and ends."""
        if self.cut is not None:
            return self.cut.recorded
        tables = [table for process in self.processes for table in (process.holds, process.waits, process.runs)]
        tables += [self.other_runs, *(spans.spans for process in self.processes for spans in process.spans)]
        starts = [int(table["start"].min()) for table in tables if len(table)]
        first = min(starts + [process.start for process in self.processes], default=self.start)
        return first, max([first] + [int(table["end"].max()) for table in tables if len(table)])

    @property
    def began_ns(self) -> int:
        """When it began, in ns since 1970: source that is older is what was run."""
        return self.start + self.realtime_offset

    @property
    def gathered(self) -> bool:
        """Whether some of its holds stand for several."""
        return any(len(process.gathered) for process in self.processes)

    @property
    def violations(self) -> tuple[str, ...]:
        """The broken invariants of all processes, in words."""
        return tuple(v for p in self.processes for v in p.violations)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader should know of how this was recorded, in words: why it was written, what it leaves out."""
        return remarks_of(self)

    @property
    def sampling(self) -> Sampling | None:
        """How the processes were sampled, of several the most coarsely; None if all of it is exact."""
        return max((p.sampling for p in self.processes if p.sampling), key=lambda one: one.interval_ns, default=None)

    @property
    def lost(self) -> int:
        """GIL events and kernel records that could not be stored."""
        return sum(p.lost for p in self.processes) + self.sched_lost

    @property
    def lost_stacks(self) -> int:
        """GIL events whose stack could not be stored."""
        return sum(p.lost_stacks for p in self.processes)

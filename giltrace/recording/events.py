"""What a recording holds, as arrays: the meeting point of the collectors and the timeline.

All times are CLOCK_MONOTONIC nanoseconds in int64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from giltrace.recording.clock import TickClock
    from giltrace.recording.door import Times
    from giltrace.recording.gil_file import GilFile

Array = npt.NDArray[np.void]

#: One record of the native tracer, its time already converted from ticks. `thread` indexes
#: `ProcessEvents.threads`. `kind` is one of `layout.Kind`; `arg` and `flags` depend on it (native/FORMAT.md).
#: `stack` numbers `ProcessEvents.stacks`: of the thread itself at a RELEASE, SLEPT or POSTED, of the holder at a
#: TIMEOUT; -1 if unknown. Of SLEPT and POSTED `arg` numbers `ProcessEvents.places`; the `flags` of SLEPT are a
#: `layout.Way`, and the `arg` of AWOKE is an `Outcome`.
GIL_EVENT = np.dtype(
    [
        ("time", "<i8"),
        ("arg", "<u4"),
        ("thread", "<u4"),
        ("gil", "<u2"),
        ("kind", "u1"),
        ("flags", "u1"),
        ("stack", "<i4"),
    ]
)

#: A semaphore that a thread slept in, and the `lock` that it was parked for by it; 0 where the semaphore is the lock.
PLACE = np.dtype([("semaphore", "<u8"), ("lock", "<u8")])

#: A `thread` that went to sleep at this time had a semaphore, and may have it still.
HELD = np.dtype([("time", "<i8"), ("thread", "<u4"), ("semaphore", "<u8")])

#: A hold that stands for `count` others, the `longest` of them so long, from which the GIL went to another thread
#: `hand_offs` times; the stack at the release `before` each of them. See `recording.gathering`.
GATHERED = np.dtype(
    [
        ("start", "<i8"),
        ("end", "<i8"),
        ("thread", "<u4"),
        ("count", "<i8"),
        ("longest", "<i8"),
        ("hand_offs", "<i8"),
        ("before", "<i4"),
    ]
)

#: So many hand-offs of a GIL took as many ns.
HAND_OFF = np.dtype([("gil", "<u2"), ("ns", "<i8"), ("count", "<i8")])

#: One switch of a thread onto (`on` = 1) or off (`on` = 0) a core. `preempted` is 1 where a thread that could
#: have gone on was taken off its core.
SWITCH = np.dtype([("time", "<i8"), ("pid", "<i4"), ("tid", "<i4"), ("cpu", "<i2"), ("on", "u1"), ("preempted", "u1")])

#: Birth (`born` = 1) or end (`born` = 0) of a thread, as the kernel saw it.
TASK = np.dtype([("time", "<i8"), ("pid", "<i4"), ("tid", "<i4"), ("born", "u1")])

#: One function span or run of equal samples. `name` indexes `Spans.names`; `depth` is 0 for the outermost.
SPAN = np.dtype([("start", "<i8"), ("end", "<i8"), ("tid", "<i4"), ("name", "<u4"), ("depth", "<u2")])

#: One look at which native function a thread was in: `function` indexes `NativeCode.functions`.
NATIVE_SAMPLE = np.dtype([("time", "<i8"), ("tid", "<i4"), ("function", "<u4")])

#: One Python frame: indices into `StackTable.strings`, and the line of the instruction (0 if unknown); where in that
#: line its expression begins and ends, in bytes from 0 on (both 0 if unknown).
FRAME = np.dtype([("function", "<u4"), ("file", "<u4"), ("line", "<i4"), ("begin", "<u2"), ("end", "<u2")])


@dataclass(frozen=True)
class StackTable:
    """The distinct Python stacks of one process, numbered from 0.

    Stack `i` is ``frames[offsets[i]:offsets[i + 1]]`` (dtype `FRAME`), innermost first; `offsets` is int64 and one
    longer than the number of stacks. `truncated[i]` (bool) says that outer frames were cut off. `own` are the paths of
    the user's own code, if he said so. `types` are names of types of objects in whose locks threads slept.
    """

    frames: Array
    offsets: npt.NDArray[np.int64]
    truncated: npt.NDArray[np.bool_]
    strings: tuple[str, ...]
    own: tuple[str, ...] = ()
    types: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.truncated)

    def within(self, files: Callable[[str], bool]) -> npt.NDArray[np.bool_]:
        """Which stacks have a frame whose file is one of `files`."""
        chosen = [at for at, text in enumerate(self.strings) if files(text)]
        if not chosen:
            return np.zeros(len(self), np.bool_)
        frame = np.append(0, np.cumsum(np.isin(self.frames["file"], chosen)))
        found: npt.NDArray[np.bool_] = frame[self.offsets[1:]] > frame[self.offsets[:-1]]
        return found


class ThreadInfo(NamedTuple):
    """A thread that touched a GIL: `tid` is the kernel's id, `lost` its events that could not be stored."""

    tid: int
    name: str
    lost: int = 0


@dataclass(frozen=True)
class Sampling:
    """How densely a process was observed from outside; its events are samples then, not records.

    `interval_ns` is the mean time between two samples, `typical_gap_ns` the time between those around a random instant
    and `longest_gap_ns` the longest. Of `switches` of a GIL from one thread to another, counted by the interpreter
    itself, `switches_missed` went to a thread that is not known. Holds after which the same thread came back unseen
    are not counted by anyone. `known_until` is the time (ns) up to which all that was seen is on record.
    """

    samples: int
    interval_ns: int
    typical_gap_ns: int
    longest_gap_ns: int
    switches: int
    switches_missed: int
    known_until: int


@dataclass(frozen=True)
class Outlined:
    """What an outline of a process (`recording.outline`) tells of the events that it leaves out, to read these again.

    They are in `file`, whose ticks are those of the `clock`, or ns if it has none, and of these `times`; its threads
    have these `numbers` there, and the tracer's stack i is ``place[i]``, one beyond the last of them none. `released`
    are the stacks at releases, each once. `last_turn` is when each GIL was had or given last, and `headless` the first
    times of threads at a GIL that did not begin with asking for it or having it. There are so many `holds`, and looks
    at holders if it was `sampled`. `in_order`: each piece of them comes after the one before. `begun` (dtype
    `GIL_EVENT`) are events that no record tells. Samples of holders that collected garbage had the `collecting` stacks,
    sorted, of what was then a table of `stacks` stacks. `born` (one per thread) tells whose birth the kernel saw.
    """

    file: GilFile
    clock: TickClock | None
    times: Times
    numbers: npt.NDArray[np.int64]
    place: npt.NDArray[np.int32]
    released: npt.NDArray[np.int32]
    last_turn: dict[int, int]
    headless: tuple[int, ...]
    holds: int
    sampled: bool
    in_order: bool
    begun: Array = field(default_factory=lambda: np.empty(0, GIL_EVENT))
    collecting: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    stacks: int = 0
    born: tuple[bool, ...] = ()


@dataclass(frozen=True)
class ProcessEvents:
    """What the native tracer recorded of one program image in one process.

    `gils` holds the address of each GIL's mutex, by GIL id. `note` says why nothing was recorded, if so.
    `events` is sorted by time; the records of one thread keep their program order. `overwritten` counts the records
    before `start` that a ring had no room for, `lost_stacks` events whose stack there was no room for. `sampling` is
    None if exact. `problems` say in words what was left out because it made no sense. If it is `not_python`, only
    `pid`, `executable`, `cmdline` and `start` mean anything. It is `unused` if it is known that its GILs were free all
    the time. `gathered` (dtype `GATHERED`) and `hand_offs` (dtype `HAND_OFF`) tell what the events leave out.
    `places` (dtype `PLACE`) are where threads slept in locks, `place_types` (one each) the number of the type of the
    object whose lock it is, from 1 on in `StackTable.types` and 0 where that is not known, `held` (dtype `HELD`) what
    they had taken then. `known_until` is a time (ns) at which it is known that it ran still, whatever its records say.
    Where `outlined`, the events are some of those that there are. So they are where there are `edges`: the first and
    the last event of each thread, whether they are among the others or not.
    """

    pid: int
    ppid: int
    python: str
    executable: str
    cmdline: str
    start: int
    threads: tuple[ThreadInfo, ...]
    gils: tuple[int, ...]
    events: Array
    lost: int = 0
    note: str = ""
    stacks: StackTable | None = None
    overwritten: int = 0
    sampling: Sampling | None = None
    problems: tuple[str, ...] = ()
    lost_stacks: int = 0
    not_python: bool = False
    unused: bool = False
    gathered: Array = field(default_factory=lambda: np.empty(0, GATHERED))
    hand_offs: Array = field(default_factory=lambda: np.empty(0, HAND_OFF))
    places: Array = field(default_factory=lambda: np.empty(0, PLACE))
    held: Array = field(default_factory=lambda: np.empty(0, HELD))
    place_types: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    known_until: int = 0
    outlined: Outlined | None = None
    edges: Array = field(default_factory=lambda: np.empty(0, GIL_EVENT))

    @property
    def with_edges(self) -> Array:
        """The events and those, sorted by time: what tells from when to when threads lived."""
        if not len(self.edges):
            return self.events
        rows = np.concatenate([self.events, self.edges])
        return rows.take(np.argsort(rows["time"], kind="stable"))


class Exec(NamedTuple):
    """Process `pid` executed another program; `name` is that of its file, cut at 15 bytes."""

    time: int
    pid: int
    name: str


@dataclass(frozen=True)
class SchedEvents:
    """Context switches and thread lifetimes of every process below the target.

    `switches` (dtype `SWITCH`), `tasks` (dtype `TASK`) and `execs` are sorted by time; `names` maps tid to the kernel's
    name (comm) of the thread, and `lost` counts the records that the kernel dropped.
    """

    switches: Array = field(default_factory=lambda: np.empty(0, SWITCH))
    tasks: Array = field(default_factory=lambda: np.empty(0, TASK))
    names: dict[int, str] = field(default_factory=dict)
    lost: int = 0
    execs: tuple[Exec, ...] = ()


class Spans(NamedTuple):
    """Spans of one process from one collector: function spans (exact) or runs of samples (`sampled`).

    `spans` has dtype `SPAN` and is sorted by (tid, start, depth); within a thread, spans nest.
    `clock_error_ns` bounds the error of their times against the GIL records.
    """

    collector: str
    pid: int
    sampled: bool
    names: tuple[str, ...]
    spans: Array
    clock_error_ns: int = 0
    lost: int = 0

    def until(self, end: int) -> Spans:
        """Those that began before `end`, cut off there."""
        rows = self.spans[self.spans["start"] < end]
        rows["end"] = np.minimum(rows["end"], end)
        return self._replace(spans=rows)


class NativeFunction(NamedTuple):
    """A function of native code: its `name`, empty where no symbol covers it, and its `file`, as the program knew it.

    The file is empty where that is not known, and `ANONYMOUS` for code that the program made as it ran. Where there is
    no name, `caller` is the first function above it on the stack that has one, of `caller_file`; empty if that is not
    known.
    """

    name: str
    file: str
    caller: str = ""
    caller_file: str = ""


@dataclass(frozen=True)
class NativeCode:
    """Samples (dtype `NATIVE_SAMPLE`, sorted by tid and time) of what native code threads ran, a number of `functions`.

    They are of all processes. A thread is sampled once per so much time that it runs on a core; asleep it is not, nor
    while the kernel works for it.
    """

    functions: tuple[NativeFunction, ...] = ()
    samples: Array = field(default_factory=lambda: np.empty(0, NATIVE_SAMPLE))

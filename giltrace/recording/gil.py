"""Read the native tracer's files (native/FORMAT.md); a torn tail costs only the records in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from giltrace.recording import layout
from giltrace.recording.chunks import Written, stack_numbers
from giltrace.recording.clock import TickClock, read_pairs
from giltrace.recording.door import Damaged, Times, leaving_out, matching
from giltrace.recording.events import (
    GATHERED,
    GIL_EVENT,
    HAND_OFF,
    Array,
    Outlined,
    ProcessEvents,
    Sampling,
    StackTable,
    ThreadInfo,
)
from giltrace.recording.folder import GIL_NAME
from giltrace.recording.gil_file import GilFile, cmdline_of, note_of, open_file, text_of
from giltrace.recording.lock_records import Places, held_at, places_of, together
from giltrace.recording.order import joined
from giltrace.recording.outline import Outliner
from giltrace.recording.stacks import placed, read_stacks
from giltrace.text import visible

if TYPE_CHECKING:
    from giltrace.recording.excerpt import Excerptor
    from giltrace.recording.gathering import Gatherer

Ints = npt.NDArray[np.int64]
#: What leaves events of a file out that has many.
Sieve: TypeAlias = "Gatherer | Outliner | Excerptor"

_EVER = Times()
_NONE, _NONE_GATHERED = np.empty(0, GIL_EVENT), np.empty(0, GATHERED)
#: So many events are gathered at a time.
_PIECE = 1 << 20


def open_files(folder: Path, times: Times = _EVER, damage: list[str] | None = None) -> list[GilFile]:
    """Open every complete `gil-*.bin` of the folder, oldest first. A file whose head was never finished is left out.

    So is one that is damaged or of another version, which is added to `damage` in words. Raises `Damaged` if no other
    is left.
    """
    files: list[GilFile] = []
    refused: list[Damaged] = []
    for path in matching(folder, GIL_NAME.fullmatch):
        with leaving_out(path, refused):
            file = open_file(path, times)
            files += [file] if file is not None else []
    _tell(refused, damage, left=len(files))
    return sorted(files, key=lambda file: int(file.header["start_ns"]))


def _tell(refused: list[Damaged], damage: list[str] | None, left: int) -> None:
    if refused and not left:
        raise refused[0]
    if damage is not None:
        damage += [error.left_out() for error in refused]


def are_exact(folder: Path, times: Times = _EVER) -> bool:
    """Whether the heads of all files say that nothing was lost, forgotten by a ring, or observed from outside.

    What single threads lost, only their chunks say. Raises as `open_files`.
    """
    headers = [file.header for file in open_files(folder, times)]
    return not any(head["lost"] or head["overwritten"] or _is_observed(head) for head in headers)


def count_records(file: GilFile, kind: layout.Kind) -> int:
    """How many records of this kind a file holds."""
    kinds = ((some.records >> np.uint64(layout.KIND_SHIFT)) & np.uint64(7) for _, some, _ in file.written())
    return sum(int(np.count_nonzero(each == kind)) for each in kinds)


class Decoder:
    """Makes `GIL_EVENT`s of the records of one file; without a `clock` their ticks are nanoseconds already."""

    def __init__(self, clock: TickClock | None) -> None:
        self._clock = clock
        self._held: list[Array] = []
        self.places = Places()

    @property
    def held(self) -> Array:
        """What threads held that went to sleep (dtype `HELD`)."""
        return together(self._held)

    def ns(self, tick: int) -> int:
        """When a tick was."""
        ticks = np.array([tick], np.uint64)
        return int((ticks if self._clock is None else self._clock.to_ns(ticks))[0])

    def decode(self, written: Written, carried: Sequence[int]) -> Array:
        """The records of some chunks.

        `carried` are the numbers of the stacks of the chunks' threads when each began.
        """
        records, bounds = written.records, written.bounds
        chunk = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
        head = records >> np.uint64(layout.KIND_SHIFT) & np.uint64(31)
        kind = (head & np.uint64(7)).astype(np.uint8)
        number = stack_numbers(records)
        timed = (kind != layout.Kind.STACK) & (kind != layout.Kind.HOLDER_STACK)
        after_sample = np.zeros(records.size, np.bool_)
        after_sample[1:] = (head[:-1] == layout.Kind.HOLDER_STACK) & (chunk[1:] == chunk[:-1])
        sampled = (kind == layout.Kind.TIMEOUT) & after_sample
        # The STACK that each record comes after, if that is in its chunk.
        given = np.maximum.accumulate(np.where(head == layout.Kind.STACK, np.arange(records.size), -1))
        stack = np.where(given >= bounds[:-1][chunk], number[given], np.array(carried, np.int64)[chunk])
        standing = (kind == layout.Kind.REQUEST) | (kind == layout.Kind.RELEASE) | (kind == layout.Kind.THREAD_END)
        own = np.where(standing, stack, 0)
        own[sampled] = number[np.flatnonzero(sampled) - 1]

        kept, chunk = records[timed], chunk[timed]
        events = np.empty(kept.size, GIL_EVENT)
        ticks = (kept & np.uint64((1 << layout.TIME_BITS) - 1)) + written.bases[chunk]
        events["time"] = ticks if self._clock is None else self._clock.to_ns(ticks)
        events["arg"] = kept >> np.uint64(layout.CORE_SHIFT)
        events["gil"] = (kept >> np.uint64(layout.GIL_SHIFT)) & np.uint64(layout.MAX_GILS - 1)
        events["flags"] = (kept >> np.uint64(layout.FLAG_SHIFT)) & np.uint64(3)
        looked = (kind[timed] == layout.Kind.TIMEOUT) & ((events["flags"] & np.uint8(layout.TimeoutFlag.SAMPLE)) != 0)
        events["kind"] = np.where(looked, np.uint8(layout.Kind.SAMPLE), kind[timed])
        events["thread"] = written.threads[chunk]
        events["stack"] = own[timed]
        self._tell_locks(events, records, head, np.flatnonzero(timed), bounds[:-1][chunk])
        return events

    def _tell_locks(
        self, events: Array, records: npt.NDArray[np.uint64], head: npt.NDArray[np.uint64], timed: Ints, since: Ints
    ) -> None:
        """Make of ends of threads what they are; `timed` are the events' records, in chunks that begin `since`."""
        told = np.flatnonzero((events["kind"] == layout.Kind.THREAD_END) & (events["gil"] != 0))
        if not len(told):
            return
        rows = events[told]
        rows["kind"] = np.minimum(layout.Kind.SAMPLE + rows["gil"], 255)
        placed = rows["gil"] != layout.More.BLOCK_END
        rows["flags"] = np.where(rows["gil"] == layout.More.WAKE, rows["flags"], rows["arg"].astype(np.uint8))
        rows["arg"][placed] = places_of(records, head, since[told][placed], timed[told][placed], self.places)
        rows["gil"] = 0
        events[told] = rows
        self._held.append(held_at(records, head, timed, events["time"], events["thread"]))


class _Threads:
    """What the chunks of one file tell of its threads, in the order in which they are given."""

    def __init__(self) -> None:
        self.tids: dict[int, int] = {}
        self.names: dict[int, bytes] = {}
        self.lost: dict[int, int] = {}
        self._stacks: dict[int, int] = {}

    def take(self, heads: Array, written: Written) -> list[int]:
        """Learn from some chunks; returns the number of the stack that each began with."""
        carried = []
        columns = (heads["tid"], heads["name"], heads["lost"])
        rows = zip(written.threads.tolist(), written.last_stacks(), *(each.tolist() for each in columns), strict=True)
        for number, stack, tid, name, lost in rows:
            carried.append(self._stacks.get(number, 0))
            if stack >= 0:
                self._stacks[number] = stack
            self.tids[number] = tid
            if name:
                self.names[number] = name
            self.lost[number] = self.lost.get(number, 0) + lost
        return carried

    def infos(self) -> tuple[ThreadInfo, ...]:
        """All of them, by their numbers."""
        names = self.names
        return tuple(
            ThreadInfo(self.tids[number], text_of(names.get(number, b"")), self.lost[number])
            for number in sorted(self.tids)
        )


def _stacks_of(file: GilFile) -> tuple[StackTable | None, npt.NDArray[np.int32], tuple[str, ...]]:
    """Read the stacks beside `file`.

    Returns the table, if there is one, the place in it of each of the tracer's numbers and at the end that of all
    others, which is -1, and why it cannot be read, if so.
    """
    version = re.match(rb"3\.(\d{1,4})\.", bytes(file.header["python"]))
    path = file.path.with_name("stacks" + file.path.name.removeprefix("gil"))
    refused: list[Damaged] = []
    read = None
    with leaving_out(path, refused):
        read = read_stacks(path, (3, int(version[1]))) if version else None
    table, place = read if read is not None else (None, np.empty(0, np.int32))
    place = np.append(place, np.int32(-1))
    if table is None:
        return None, place, tuple(error.left_out() for error in refused)
    return replace(table, strings=tuple(map(visible, table.strings))), place, ()


def tick_clock(folder: Path, files: Sequence[GilFile], times: Times = _EVER) -> TickClock:
    """The clock of a recording with at least one file: through the heads' readings and those of `clock.bin`."""
    return TickClock(np.concatenate([*(file.pair for file in files), read_pairs(folder, times)]))


def read_processes(
    folder: Path,
    times: Times = _EVER,
    damage: list[str] | None = None,
    sieve: Callable[[], Sieve] | None = None,
) -> tuple[list[ProcessEvents], int]:
    """Everything that the tracer recorded, a `ProcessEvents` per file, and the bound of its clock's error in ns.

    What is not of these `times` is left out, and so are damaged files, as by `open_files`. A `sieve` is made for each
    file, if one is given. Of what an `Outliner` leaves out, `read_again` has the events about GILs.
    """
    files = open_files(folder, times, damage)
    ticking = [file for file in files if file.clock is not layout.Clock.MONOTONIC_NS]
    clock = tick_clock(folder, ticking, times) if ticking else None
    processes: list[ProcessEvents] = []
    refused: list[Damaged] = []
    for file in files:
        with leaving_out(file.path, refused):
            processes.append(read_process(file, clock, times, sieve=None if sieve is None else sieve()))
    _tell(refused, damage, left=len(processes))
    return processes, clock.error_ns if clock is not None else 0


def read_process(
    file: GilFile,
    clock: TickClock | None,
    times: Times = _EVER,
    *,
    stacks: bool = True,
    sieve: Sieve | None = None,
) -> ProcessEvents:
    """Decode one file into events sorted by time; without a `clock` if its ticks are nanoseconds.

    Without `stacks` those are not read. With a `sieve`, which must be new, the events are those that it leaves.
    """
    ticking = None if file.clock is layout.Clock.MONOTONIC_NS else clock
    refused: list[int] = []
    threads = _Threads()
    decoder = Decoder(ticking)
    left_out: list[int] = []
    events = joined(_in_order(file, decoder, times, threads, refused, left_out, sieve), GIL_EVENT)
    outside = sum(left_out)
    problems = [f"chunks whose head makes no sense: {len(refused)}"] if refused else []
    problems += [f"records of times outside the recording: {outside}"] if outside else []
    gathered = _NONE_GATHERED if sieve is None else sieve.gathered
    edges = _NONE if sieve is None else sieve.edges
    held = decoder.held
    numbers = sorted(threads.tids)
    if numbers and numbers[-1] != len(numbers) - 1:
        for rows in (events, gathered, held, edges):
            rows["thread"] = np.searchsorted(np.array(numbers, np.int64), rows["thread"])
    header, infos = file.header, threads.infos()
    start = int(header["start_ns"])
    if header["complete_from"]:
        start = int(np.clip(decoder.ns(int(header["complete_from"])), *times))
        events = events[np.searchsorted(events["time"], start) :]
        edges["time"] = np.maximum(edges["time"], start)
    table, place, more = _stacks_of(file) if stacks else (None, np.empty(0, np.int32), ())
    for rows, name in ((events, "stack"), (gathered, "before")) if stacks else ():
        rows[name] = placed(rows[name], place)
    outlined = None
    if isinstance(sieve, Outliner):
        outlined = sieve.outlined(file, ticking, times, numbers, place)
    return ProcessEvents(
        pid=int(header["pid"]),
        ppid=int(header["ppid"]),
        python=text_of(bytes(header["python"])),
        executable=text_of(bytes(header["executable"])),
        cmdline=cmdline_of(file),
        start=start,
        threads=infos,
        gils=tuple(int(a) for a in header["gils"][: int(header["gil_count"])]),
        events=events,
        lost=int(header["lost"]) + sum(thread.lost for thread in infos),
        note=note_of(header),
        stacks=table,
        overwritten=int(header["overwritten"]),
        sampling=_sampling(header),
        problems=(*problems, *more),
        lost_stacks=int(header["lost_stacks"]),
        not_python=not file.is_python,
        gathered=gathered,
        hand_offs=np.empty(0, HAND_OFF) if sieve is None else sieve.hand_offs,
        places=decoder.places.table,
        place_types=decoder.places.types,
        held=held,
        outlined=outlined,
        edges=edges,
    )


def read_again(outlined: Outlined) -> Iterator[Array]:
    """Yield the events about GILs of one file (dtype `GIL_EVENT`), in pieces, as `read_process` has them."""
    decoder = Decoder(outlined.clock)
    for events in _in_order(outlined.file, decoder, outlined.times, _Threads(), [], [], None):
        kept = events[(events["kind"] <= layout.Kind.RELEASE) | (events["kind"] == layout.Kind.SAMPLE)]
        kept["thread"] = np.searchsorted(outlined.numbers, kept["thread"])
        kept["stack"] = placed(kept["stack"], outlined.place)
        yield kept


def _parts(file: GilFile, decoder: Decoder, threads: _Threads, refused: list[int]) -> Iterator[tuple[Array, int]]:
    """Yield the events of some chunks at a time, and the tick before which there are none in those that follow.

    The `threads` learn from them.
    """
    for heads, some, reach in file.written(refused):
        yield decoder.decode(some, threads.take(heads, some)), reach


def _in_order(
    file: GilFile,
    decoder: Decoder,
    times: Times,
    threads: _Threads,
    refused: list[int],
    left_out: list[int],
    sieve: Sieve | None,
) -> Iterator[npt.NDArray[np.void]]:
    """Yield the events piece by piece in order of time; with a `sieve`, those that are left by it.

    How many were of other times is added to `left_out`.
    """
    parts, size = [_NONE], 0
    for part, reach in _parts(file, decoder, threads, refused):
        parts.append(part)
        size += len(part)
        if size < _PIECE:
            continue
        events, outside = _of(times, joined(parts, GIL_EVENT))
        left_out.append(outside)
        done = int(np.searchsorted(events["time"], decoder.ns(reach)))
        yield sieve.feed(events[:done]) if sieve is not None else events[:done]
        parts, size = [events[done:].copy()], 0
    events, outside = _of(times, joined(parts, GIL_EVENT))
    left_out.append(outside)
    yield sieve.feed(events, last=True) if sieve is not None else events


def _of(times: Times, events: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.void], int]:
    """The events of these times, in order, and how many others there were."""
    good = times.have(events["time"])
    outside = len(good) - int(good.sum())
    events = events[good] if outside else events
    # `take` moves whole rows, an index of them each field by itself: ten times slower.
    return events.take(np.argsort(events["time"], kind="stable")), outside


def _is_observed(header: np.void) -> bool:
    return layout.Status.OBSERVED in layout.Status(int(header["status"]))


def _sampling(header: np.void) -> Sampling | None:
    if not _is_observed(header):
        return None
    samples, sampled_ns = int(header["samples"]), int(header["sampled_ns"])
    return Sampling(
        samples=samples,
        interval_ns=sampled_ns // max(samples - 1, 1),
        typical_gap_ns=int(header["typical_gap_ns"]),
        longest_gap_ns=int(header["longest_gap_ns"]),
        switches=int(header["switches"]),
        switches_missed=int(header["switches_missed"]),
        known_until=int(header["known_until_ns"]),
    )

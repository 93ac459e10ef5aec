"""Read the native tracer's files (native/FORMAT.md); a torn tail costs only the records in it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giltrace.errors import RecordingError
from giltrace.recording import layout
from giltrace.recording.clock import PAIR, TickClock, read_pairs
from giltrace.recording.events import GIL_EVENT, ProcessEvents, Sampling, StackTable, ThreadInfo
from giltrace.recording.stacks import read_stacks

#: Chunks begin at multiples of this.
ALIGNMENT = 4096


@dataclass(frozen=True)
class GilFile:
    """One mapped file; `header` is a scalar of dtype `layout.HEADER`."""

    path: Path
    data: npt.NDArray[np.uint8]
    header: np.void

    @property
    def clock(self) -> layout.Clock:
        """What its ticks are."""
        return layout.Clock(int(self.header["clock"]))

    @property
    def pair(self) -> npt.NDArray[np.void]:
        """The reading of both clocks in the head, as an array of one `PAIR`."""
        return np.array([(self.header["start_ticks"], self.header["start_ns"], 0)], PAIR)


def open_files(folder: Path) -> list[GilFile]:
    """Map every complete `gil-*.bin` of the folder, oldest first.

    Raises `RecordingError` for a file of another version. A file whose head was never finished is left out.
    """
    files = []
    for path in folder.glob("gil-*.bin"):
        if path.stat().st_size < layout.HEADER_SIZE:
            continue
        data = np.memmap(path, np.uint8, "r")
        header = data[: layout.HEADER.itemsize].view(layout.HEADER)[0]
        if int(header["magic"]) != layout.MAGIC:
            continue
        if int(header["version"]) != layout.VERSION:
            raise RecordingError(
                f"{path} has format version {header['version']}, this giltrace reads {layout.VERSION}",
                "read it with the giltrace that recorded it (see meta.json)",
            )
        files.append(GilFile(path, data, header))
    return sorted(files, key=lambda file: int(file.header["start_ns"]))


def _chunks(data: npt.NDArray[np.uint8]) -> Iterator[tuple[np.void, npt.NDArray[np.uint64]]]:
    """Each chunk's head and its records, as they lie; space that was allocated but never begun is stepped over."""
    at = layout.HEADER_SIZE
    while at + layout.CHUNK.itemsize <= data.size:
        head = data[at : at + layout.CHUNK.itemsize].view(layout.CHUNK)[0]
        size = int(head["size"])
        if int(head["magic"]) != layout.CHUNK_MAGIC or size < ALIGNMENT or size % ALIGNMENT:
            at += ALIGNMENT
            continue
        end = min(at + size, data.size)
        body = data[at + layout.CHUNK.itemsize : end - (end - at) % layout.RECORD.itemsize]
        records = body.view(layout.RECORD)
        yield head, records[: _filled(records)]
        at += size


def _filled(records: npt.NDArray[np.uint64]) -> int:
    """How many records were written: they are never 0, and what follows them is."""
    empty = records == 0
    return int(empty.argmax()) if empty.any() else records.size


def count_records(file: GilFile, kind: layout.Kind) -> int:
    """How many records of this kind a file holds."""
    kinds = ((records >> np.uint64(layout.KIND_SHIFT)) & np.uint64(7) for _, records in _chunks(file.data))
    return sum(int(np.count_nonzero(each == kind)) for each in kinds)


def decode(
    records: npt.NDArray[np.uint64], base: int, thread: int, clock: TickClock | None, carried: int
) -> tuple[npt.NDArray[np.void], int]:
    """Records of one chunk as `GIL_EVENT`s; without a `clock` their ticks are nanoseconds already.

    `carried` is the number of the thread's stack when the chunk began; the one when it ended is returned too.
    """
    kind = ((records >> np.uint64(layout.KIND_SHIFT)) & np.uint64(7)).astype(np.uint8)
    number = (records & np.uint64(0xFFFFFFFF)).astype(np.int64)
    stack = _last_number(kind == layout.Kind.STACK, number, carried)
    timed = (kind != layout.Kind.STACK) & (kind != layout.Kind.HOLDER_STACK)
    after_sample = np.zeros(records.size, np.bool_)
    after_sample[1:] = kind[:-1] == layout.Kind.HOLDER_STACK
    sampled = (kind == layout.Kind.TIMEOUT) & after_sample
    own = np.where(kind == layout.Kind.RELEASE, stack, 0)
    own[sampled] = number[np.flatnonzero(sampled) - 1]

    kept = records[timed]
    events = np.empty(kept.size, GIL_EVENT)
    ticks = (kept & np.uint64((1 << layout.TIME_BITS) - 1)) + np.uint64(base)
    events["time"] = ticks if clock is None else clock.to_ns(ticks)
    events["arg"] = kept >> np.uint64(layout.CORE_SHIFT)
    events["gil"] = (kept >> np.uint64(layout.GIL_SHIFT)) & np.uint64(layout.MAX_GILS - 1)
    events["flags"] = (kept >> np.uint64(layout.FLAG_SHIFT)) & np.uint64(3)
    events["kind"] = kind[timed]
    events["thread"] = thread
    events["stack"] = own[timed]
    return events, int(stack[-1]) if stack.size else carried


def _last_number(given: npt.NDArray[np.bool_], number: npt.NDArray[np.int64], carried: int) -> npt.NDArray[np.int64]:
    """For each record the number that the last one marked in `given` gave, `carried` before the first."""
    at = np.cumsum(given)
    return np.concatenate([[carried], number[given]])[at]


def _resolve_stacks(file: GilFile, events: npt.NDArray[np.void]) -> StackTable | None:
    """Read the stacks beside `file` and turn the tracer's numbers in `events` into places in the table, -1 for none."""
    version = re.match(rb"3\.(\d+)\.", bytes(file.header["python"]))
    path = file.path.with_name("stacks" + file.path.name.removeprefix("gil"))
    read = read_stacks(path, (3, int(version[1]))) if version else None
    if read is None:
        events["stack"] = -1
        return None
    table, place = read
    known = events["stack"] < place.size
    events["stack"] = np.where(known, place[np.where(known, events["stack"], 0)], -1)
    return table


def text_of(value: bytes) -> str:
    """A text of the tracer's, whatever bytes the program gave it."""
    return value.decode("utf-8", "replace")


def cmdline_of(file: GilFile) -> str:
    """The words of the command line; they are stored NUL-separated, which a numpy string would end at."""
    at = int(layout.HEADER.fields["cmdline"][1]) if layout.HEADER.fields else 0
    size = layout.HEADER["cmdline"].itemsize
    return text_of(file.data[at : at + size].tobytes().rstrip(b"\0")).replace("\0", " ")


def tick_clock(folder: Path, files: Sequence[GilFile]) -> TickClock:
    """The clock of a recording with at least one file: through the heads' readings and those of `clock.bin`."""
    return TickClock(np.concatenate([*(file.pair for file in files), read_pairs(folder)]))


def read_processes(folder: Path) -> tuple[list[ProcessEvents], int]:
    """Everything that the tracer recorded, a `ProcessEvents` per file, and the bound of its clock's error in ns."""
    files = open_files(folder)
    ticking = [file for file in files if file.clock is not layout.Clock.MONOTONIC_NS]
    if not ticking:
        return [read_process(file, None) for file in files], 0
    clock = tick_clock(folder, ticking)
    return [read_process(file, clock) for file in files], clock.error_ns


def read_process(file: GilFile, clock: TickClock | None) -> ProcessEvents:
    """Decode one file into events sorted by time; without a `clock` if its ticks are nanoseconds."""
    threads: dict[int, ThreadInfo] = {}
    parts = []
    stack: dict[int, int] = {}
    ticking = None if file.clock is layout.Clock.MONOTONIC_NS else clock
    # A ring uses its oldest chunks again: there the order in the file is not the order in time.
    for head, records in sorted(_chunks(file.data), key=lambda chunk: int(chunk[0]["sequence"])):
        index = int(head["thread"])
        known = threads.get(index)
        name = text_of(bytes(head["name"])) or (known.name if known else "")
        lost = int(head["lost"]) + (known.lost if known else 0)
        threads[index] = ThreadInfo(int(head["tid"]), name, lost)
        part, stack[index] = decode(records, int(head["base"]), index, ticking, stack.get(index, 0))
        parts.append(part)
    numbering = {index: position for position, index in enumerate(sorted(threads))}
    events = np.concatenate(parts) if parts else np.empty(0, GIL_EVENT)
    if numbering and max(numbering) != len(numbering) - 1:
        dense = np.zeros(max(numbering) + 1, np.uint32)
        dense[list(numbering)] = list(numbering.values())
        events["thread"] = dense[events["thread"]]
    events = events[np.argsort(events["time"], kind="stable")]
    header = file.header
    start = int(header["start_ns"])
    if header["complete_from"]:
        ticks = header["complete_from"].reshape(1)
        start = int(ticks[0] if ticking is None else ticking.to_ns(ticks)[0])
        events = events[np.searchsorted(events["time"], start) :]
    return ProcessEvents(
        pid=int(header["pid"]),
        ppid=int(header["ppid"]),
        python=text_of(bytes(header["python"])),
        executable=text_of(bytes(header["executable"])),
        cmdline=cmdline_of(file),
        start=start,
        threads=tuple(threads[index] for index in sorted(threads)),
        gils=tuple(int(a) for a in header["gils"][: int(header["gil_count"])]),
        events=events,
        lost=int(header["lost"]) + sum(thread.lost for thread in threads.values()),
        note=note_of(header),
        stacks=_resolve_stacks(file, events),
        overwritten=int(header["overwritten"]),
        sampling=_sampling(header),
    )


def _sampling(header: np.void) -> Sampling | None:
    if layout.Status.OBSERVED not in layout.Status(int(header["status"])):
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


def note_of(header: np.void) -> str:
    """Why nothing was recorded, if so."""
    note = text_of(bytes(header["note"]))
    status = layout.Status(int(header["status"]))
    if note or layout.Status.GIL_SEEN in status:
        return note
    if layout.Status.FREE_THREADED in status:
        return "free-threaded build: no use of a GIL was seen"
    return "no use of a GIL was seen"

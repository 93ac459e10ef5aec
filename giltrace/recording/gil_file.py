"""One of the native tracer's files (native/FORMAT.md): its head, its chunks, and what of them is accepted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giltrace.recording import layout
from giltrace.recording.clock import PAIR
from giltrace.recording.door import MAX_COUNT, MAX_ID, MAX_TIME, Damaged, Source, Times
from giltrace.text import visible

#: Chunks begin at multiples of this.
ALIGNMENT = 4096
#: No tracer writes larger ones.
MAX_CHUNK = 4 << 20

#: No chunk begins later: in ticks.
_END = 1 << 62

_COUNTS = ("lost_stacks", "lost", "ring_size", "overwritten", "samples", "switches", "switches_missed")
_LENGTHS = ("sampled_ns", "longest_gap_ns", "typical_gap_ns")


@dataclass(frozen=True)
class GilFile:
    """One file: `head` are its first bytes, `header` they as a scalar of dtype `layout.HEADER`."""

    path: Path
    head: bytes
    header: np.void

    @classmethod
    def of(cls, path: Path, head: bytes) -> GilFile:
        """The file at `path` that begins with `head`, of at least `layout.HEADER_SIZE` bytes."""
        return cls(path, head, np.frombuffer(head, layout.HEADER, 1)[0])

    @property
    def clock(self) -> layout.Clock:
        """What its ticks are."""
        return layout.Clock(int(self.header["clock"]))

    @property
    def is_python(self) -> bool:
        """Whether it is about a Python; else it tells only when a program that is not Python began."""
        return layout.Status.NOT_PYTHON not in layout.Status(int(self.header["status"]))

    @property
    def pair(self) -> npt.NDArray[np.void]:
        """The reading of both clocks in the head, as an array of one `PAIR`."""
        return np.array([(self.header["start_ticks"], self.header["start_ns"], 0)], PAIR)

    def wrong(self, times: Times) -> str:
        """Say which number in the head makes no sense in a recording of these `times`; empty if all do."""
        head = self.header
        if not 0 < int(head["pid"]) <= MAX_ID or int(head["ppid"]) > MAX_ID:
            return f"its process id is {head['pid']}"
        if int(head["clock"]) not in tuple(layout.Clock):
            return f"its clock is of the unknown kind {head['clock']}"
        if int(head["gil_count"]) > layout.MAX_GILS:
            return f"it has {head['gil_count']} GILs"
        if int(head["gil_count"]) and not self.is_python:
            return "it has GILs, and is of no Python"
        if not times.first <= int(head["start_ns"]) <= times.last or int(head["known_until_ns"]) > times.last:
            return "it is of another time than the recording"
        wrong = [name for name in _COUNTS if int(head[name]) > MAX_COUNT]
        wrong += [name for name in _LENGTHS if int(head[name]) > MAX_TIME]
        return f"its head's {wrong[0]} makes no sense" if wrong else ""

    def chunks(self, refused: list[int] | None = None) -> Iterator[tuple[np.void, npt.NDArray[np.uint64], int]]:
        """Each chunk's head and its records, those of one thread in their order; and the least base of those to come.

        Space that was allocated but never begun is stepped over, and so is a chunk whose head makes no sense: where it
        begins is added to `refused`.
        """
        with Source(self.path) as source:
            # A ring uses its oldest chunks again: there the order in the file is not the order in time.
            found = sorted(_chunk_heads(source, refused), key=lambda chunk: int(chunk[1]["sequence"]))
            base = np.array([int(head["base"]) for _, head in found], np.uint64)
            reach = np.append(np.minimum.accumulate(base[::-1])[::-1][1:], np.uint64(_END)).tolist()
            for (at, head), to_come in zip(found, reach, strict=True):
                body = source.read(at + layout.CHUNK.itemsize, int(head["size"]) - layout.CHUNK.itemsize)
                records = np.frombuffer(body, layout.RECORD, len(body) // layout.RECORD.itemsize)
                yield head, records[: filled(records)], to_come


def open_file(path: Path, times: Times) -> GilFile | None:
    """Read a file's head; None if it was never finished.

    Raises `Damaged` if it is of another version, or makes no sense in a recording of these `times`.
    """
    with Source(path) as source:
        head = source.read(0, layout.HEADER_SIZE)
    magic = int.from_bytes(head[:8], "little")
    if not magic:
        return None
    if magic != layout.MAGIC or len(head) < layout.HEADER_SIZE:
        raise Damaged(path, "its head is cut off" if magic == layout.MAGIC else "it is no tracer's file")
    file = GilFile.of(path, head)
    if int(file.header["version"]) != layout.VERSION:
        raise Damaged(
            path,
            f"format version {file.header['version']}, this giltrace reads {layout.VERSION}",
            "read it with the giltrace that recorded it (see meta.json)",
            "has",
        )
    wrong = file.wrong(times)
    if wrong:
        raise Damaged(path, wrong)
    return file


def _chunk_heads(source: Source, refused: list[int] | None) -> Iterator[tuple[int, np.void]]:
    """Where a chunk begins, and its head: one that makes sense."""
    after = layout.HEADER_SIZE
    for begin, end in source.stretches():
        at = max(begin // ALIGNMENT * ALIGNMENT, after)
        while at + layout.CHUNK.itemsize <= end:
            after = at + ALIGNMENT
            data = source.read(at, layout.CHUNK.itemsize)
            if len(data) < layout.CHUNK.itemsize:
                return
            head = np.frombuffer(data, layout.CHUNK)[0]
            if is_chunk(head):
                after = at + int(head["size"])
                yield at, head
            elif refused is not None and int(head["magic"]) == layout.CHUNK_MAGIC:
                refused.append(at)
            at = after


def is_chunk(head: np.void) -> bool:
    """Whether these bytes are the head of a chunk, and all in it makes sense."""
    size = int(head["size"])
    return (
        int(head["magic"]) == layout.CHUNK_MAGIC
        and ALIGNMENT <= size <= MAX_CHUNK
        and size % ALIGNMENT == 0
        and 0 < int(head["tid"]) <= MAX_ID
        and int(head["lost"]) <= MAX_COUNT
    )


def filled(records: npt.NDArray[np.uint64]) -> int:
    """How many records were written: they are never 0, and what follows them is."""
    empty = records == 0
    return int(empty.argmax()) if empty.any() else records.size


def text_of(value: bytes) -> str:
    """A text of the tracer's, whatever bytes the program gave it, `visible`."""
    return visible(value.decode("utf-8", "replace"))


def cmdline_of(file: GilFile) -> str:
    """The words of the command line; they are stored NUL-separated, which a numpy string would end at."""
    at = int(layout.HEADER.fields["cmdline"][1]) if layout.HEADER.fields else 0
    size = layout.HEADER["cmdline"].itemsize
    return text_of(b" ".join(file.head[at : at + size].rstrip(b"\0").split(b"\0")))


def note_of(header: np.void) -> str:
    """Why nothing was recorded, if so."""
    note = text_of(bytes(header["note"]))
    status = layout.Status(int(header["status"]))
    if note or layout.Status.GIL_SEEN in status:
        return note
    if layout.Status.FREE_THREADED in status:
        return "free-threaded build: no use of a GIL was seen"
    return "no use of a GIL was seen"

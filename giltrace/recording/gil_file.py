"""One of the native tracer's files (native/FORMAT.md): its head, its chunks, and what of them is accepted."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording import chunks, layout
from giltrace.recording.chunks import Written
from giltrace.recording.clock import PAIR
from giltrace.recording.door import MAX_COUNT, MAX_ID, MAX_TIME, Damaged, Source, Times
from giltrace.recording.events import Array
from giltrace.recording.packed import Laid
from giltrace.text import visible

_COUNTS = ("lost_stacks", "lost", "ring_size", "overwritten", "samples", "switches", "switches_missed")
_LENGTHS = ("sampled_ns", "longest_gap_ns", "typical_gap_ns")


class GilFile(NamedTuple):
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

    def written(self, refused: list[int] | None = None) -> Iterator[tuple[Array, Written, int]]:
        """The heads of all chunks and their records, some chunks at a time, in order of their bases.

        The number is the tick before which there is no record in those that are still to come.

        Where a chunk begins whose head makes no sense is added to `refused`.
        """
        with Laid(self.path) as source:
            yield from chunks.read(source, chunks.find(source, refused))


def head_at(path: Path) -> bytes | None:
    """The head of a file that is being written, as it is now; None if it is gone, or not whole."""
    with contextlib.suppress(OSError), Source(path) as source:
        head = source.read(0, layout.HEADER_SIZE)
        return head if len(head) == layout.HEADER_SIZE else None
    return None


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
    if int(file.header["version"]) not in layout.VERSIONS:
        raise Damaged(
            path,
            f"format version {file.header['version']}, this giltrace reads {' and '.join(map(str, layout.VERSIONS))}",
            "read it with the giltrace that recorded it (see meta.json)",
            "has",
        )
    wrong = file.wrong(times)
    if wrong:
        raise Damaged(path, wrong)
    return file


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

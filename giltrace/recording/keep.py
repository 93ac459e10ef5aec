"""Keep a part of a recording that is being written as a recording of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

import giltrace
from giltrace.recording import layout
from giltrace.recording.chunks import ALIGNMENT, Words
from giltrace.recording.clock_file import append_pair
from giltrace.recording.cores_log import CoresLog
from giltrace.recording.folder import RecordingFolder
from giltrace.recording.live import LiveReader, Update
from giltrace.recording.live_file import LiveFile, Piece
from giltrace.recording.meta import Meta
from giltrace.recording.stacks import copy_records

_HEAD = layout.CHUNK.itemsize
# Records of one thread are put together until they fill a chunk of this size.
_FULL = (ALIGNMENT - _HEAD) // layout.RECORD.itemsize - 1
# The stretch that threads of few records find a place in.
_STRETCH = 1 << 16
_FORCED = np.uint64(layout.RecordFlag.FORCED << layout.FLAG_SHIFT)


class Holding(NamedTuple):
    """A thread that has a GIL: the file of its process, its id and name, and the address of the GIL's mutex."""

    file: LiveFile
    tid: int
    name: str
    gil: int


@dataclass
class _Thread:
    """What of a thread was not written yet, all of it out of one chunk, and how many chunks were."""

    pieces: list[Piece] = field(default_factory=list)
    chunks: int = 0
    #: Where in the file the last release was written, and that word.
    release: tuple[int, int] | None = None


class _Copy:
    """One process's file and its stacks."""

    def __init__(self, source: LiveFile, folder: Path, since: tuple[int, int]) -> None:
        self._source = source
        self._since = since
        self._path = folder / source.path.name
        self._stacks = self._path.with_name("stacks" + self._path.name.removeprefix("gil"))
        self._copied = 0
        self._threads: dict[int, _Thread] = {}
        self._file = self._path.open("wb", buffering=0)
        self._end = layout.HEADER_SIZE
        # Where the next small chunks are to lie.
        self._small: Iterator[int] = iter(())
        self.write_head()

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._source.pid

    def write_head(self) -> None:
        """Describe the process as it is known now."""
        head = np.frombuffer(self._source.header.head, np.uint8).copy()
        known = head[: layout.HEADER.itemsize].view(layout.HEADER)
        # What follows the note is between the tracer and its recorder.
        head[layout.HEADER.fields["note"][1] + layout.HEADER["note"].itemsize :] = 0  # type: ignore[index]
        if self._since[1] > int(known["start_ns"][0]):
            known["start_ticks"], known["start_ns"] = self._since
        os.pwrite(self._file.fileno(), head.tobytes(), 0)

    def take(self, pieces: tuple[Piece, ...]) -> None:
        """Keep some records; the stacks that they name first."""
        self._copy_stacks()
        for piece in pieces:
            thread = self._threads.setdefault(piece.thread, _Thread())
            if piece.late_forced:
                self._mark_forced(thread)
            if thread.pieces and thread.pieces[-1].sequence != piece.sequence:
                self._write_chunk(thread)
            thread.pieces.append(piece)
            ended = layout.is_end(int(piece.records[-1]))
            if ended or sum(one.records.size for one in thread.pieces) >= _FULL:
                self._write_chunk(thread)
            if ended:
                del self._threads[piece.thread]

    def finish(self) -> None:
        """Write what was not written yet."""
        for thread in self._threads.values():
            if thread.pieces:
                self._write_chunk(thread)
        self._copy_stacks()
        self.write_head()
        self._file.close()

    def _write_chunk(self, thread: _Thread) -> None:
        first = thread.pieces[0]
        given = [np.array([layout.Kind.STACK << layout.KIND_SHIFT | first.stack], np.uint64)] if first.stack else []
        records = np.concatenate([*given, *(piece.records for piece in thread.pieces)])
        place, size = self._place(_HEAD + records.nbytes)
        head = np.zeros(1, layout.CHUNK)
        head["magic"], head["size"], head["sequence"] = layout.CHUNK_MAGIC, size, thread.chunks
        head["thread"], head["tid"], head["base"] = first.thread, first.info.tid, first.base
        head["name"] = first.info.name.encode()
        os.pwrite(self._file.fileno(), (head.tobytes() + records.tobytes()).ljust(size, b"\0"), place)
        at = _last_release(records)
        if at >= 0:
            thread.release = (place + _HEAD + at * records.itemsize, int(records[at]))
        thread.chunks += 1
        thread.pieces = []

    def _place(self, size: int) -> tuple[int, int]:
        """Where in the file a chunk of `size` bytes is to lie, and how many it has there."""
        if size > layout.SMALL_CHUNK:
            size = -(-size // ALIGNMENT) * ALIGNMENT
            self._end += size
            return self._end - size, size
        place = next(self._small, None)
        if place is None:
            head = np.array([(layout.STRETCH_MAGIC, _STRETCH, layout.SMALL_CHUNK, 0)], layout.STRETCH)
            os.pwrite(self._file.fileno(), head.tobytes(), self._end)
            begin, self._end = self._end, self._end + _STRETCH
            os.truncate(self._file.fileno(), self._end)
            self._small = iter(range(begin + layout.SMALL_CHUNK, self._end, layout.SMALL_CHUNK))
            place = next(self._small)
        return place, layout.SMALL_CHUNK

    def _mark_forced(self, thread: _Thread) -> None:
        """The thread's last release has turned out to be a forced one."""
        for piece in reversed(thread.pieces):
            at = _last_release(piece.records)
            if at >= 0:
                piece.records[at] |= _FORCED
                return
        if thread.release is not None:
            place, word = thread.release
            os.pwrite(self._file.fileno(), np.uint64(word | int(_FORCED)).tobytes(), place)

    def _copy_stacks(self) -> None:
        source = self._source.path.with_name(self._stacks.name)
        if source.exists():
            with self._stacks.open("ab") as copy:
                self._copied = copy_records(source, self._copied, copy)


def _last_release(records: Words) -> int:
    found = np.flatnonzero((records >> np.uint64(layout.KIND_SHIFT)) & np.uint64(7) == layout.Kind.RELEASE)
    return int(found[-1]) if len(found) else -1


class Keeper:
    """Writes what `reader` gives from now on as a recording at `path`; raises `OutputError` if it cannot be.

    `since_ns` is how far the reader has come. Nothing is known of context switches. `holding` are the threads that have
    a GIL then: one that never lets go of it gives nothing else to write down.
    """

    def __init__(
        self, path: Path, command: list[str], reader: LiveReader, since_ns: int, holding: Iterable[Holding] = ()
    ) -> None:
        self.path = path
        self._reader = reader
        folder = RecordingFolder(path, force=False)
        self._meta = Meta.begin(giltrace.__version__, command)
        self._meta.start_ns = since_ns
        self._copies: dict[int, _Copy] = {}
        self._ticking = False
        self._until_ns = since_ns
        self._ended: set[int] = set()
        for one in holding:
            self._meta.holders.append([one.file.pid, one.tid, one.gil])
            self._meta.thread_names[str(one.tid)] = one.name
            self._copy_of(one.file)
        self._meta.write(path)
        folder.keep()
        self._cores = CoresLog(path)

    def take(self, updates: list[Update], until_ns: int) -> None:
        """Keep what is new, until then."""
        self._until_ns = until_ns
        for update in updates:
            if update.pieces:
                self._copy_of(update.file).take(update.pieces)
            if update.ended:
                self._ended.add(update.file.number)
        self._cores.look()
        if self._ticking:
            append_pair(self.path)

    def _copy_of(self, file: LiveFile) -> _Copy:
        copy = self._copies.get(file.number)
        if copy is None:
            since = self._meta.start_ns
            begin = (self._reader.ticks_at(file, since), since)
            copy = self._copies[file.number] = _Copy(file, self.path, begin)
            self._ticking |= file.clock is layout.Clock.TSC
        return copy

    def finish(self) -> Path:
        """End the recording and return its folder."""
        for copy in self._copies.values():
            copy.finish()
        self._meta.end_ns = time.monotonic_ns()
        lived = {copy.pid for number, copy in self._copies.items() if number not in self._ended}
        self._meta.lived = [[pid, self._until_ns] for pid in sorted(lived)]
        gil = {"name": "gil", "status": "ok"}
        sched = {"name": "sched", "status": "off: what is kept out of the live view is the GIL only"}
        self._meta.collectors = [gil, sched]
        self._meta.state = "complete"
        self._meta.write(self.path)
        return self.path

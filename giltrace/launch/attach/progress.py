"""How many events a recording has so far, for somebody who watches it grow."""

from __future__ import annotations

import contextlib
import os

from giltrace.process.folder import Folder
from giltrace.recording.chunks import is_chunk, small_chunks
from giltrace.recording.folder import GIL_NAME
from giltrace.recording.layout import CHUNK, HEADER_SIZE, RECORD, is_end

_WORD = RECORD.itemsize


class EventCount:
    """Counts the records in the files of `folder`; each count costs as much as there are threads, not events."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._files: dict[str, _File] = {}

    def count(self) -> int:
        """Return how many there are now."""
        with contextlib.suppress(OSError):
            for name in self._folder.names(GIL_NAME):
                self._files.setdefault(name, _File(self._folder, name))
        return sum(file.count() for file in self._files.values())


class _File:
    def __init__(self, folder: Folder, name: str) -> None:
        self._folder, self._name = folder, name
        self._next = HEADER_SIZE
        # Chunks that grow: where, and how long. Stretches: where the small chunks to come lie, and how long each is.
        self._open: dict[int, int] = {}
        self._stretches: list[tuple[int, int, int]] = []
        self._complete = 0

    def count(self) -> int:
        try:
            with self._folder.opened(self._name) as descriptor:
                self._find_chunks(descriptor)
                self._find_small(descriptor)
                filled = {at: _filled(descriptor, at, size) for at, size in self._open.items()}
                ended = [at for at, records in filled.items() if _has_ended(descriptor, at, self._open[at], records)]
        except OSError:
            return self._complete
        for at in ended:
            del self._open[at]
            self._complete += filled[at]
        return self._complete + sum(filled[at] for at in self._open)

    def _find_chunks(self, descriptor: int) -> None:
        length = os.fstat(descriptor).st_size
        while len(head := os.pread(descriptor, CHUNK.itemsize, self._next)) == CHUNK.itemsize:
            stretch, small = small_chunks(head)
            size = stretch or (int.from_bytes(head[4:8], "little") if is_chunk(head) else 0)
            if not size or self._next + size > length:
                return
            if small:
                self._stretches.append((self._next + small, self._next + size, small))
            else:
                self._open[self._next] = size
            self._next += size

    def _find_small(self, descriptor: int) -> None:
        stretches, self._stretches = self._stretches, []
        for at, end, size in stretches:
            heads = os.pread(descriptor, end - at, at)
            while at < end and is_chunk(heads[: CHUNK.itemsize].ljust(CHUNK.itemsize, b"\0"), size):
                self._open[at] = size
                at, heads = at + size, heads[size:]
            if at < end:
                self._stretches.append((at, end, size))


def _filled(descriptor: int, at: int, size: int) -> int:
    """How many records a chunk holds: they are written in order and never 0."""
    low, high = 0, (size - CHUNK.itemsize) // _WORD
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if _record(descriptor, at, middle) else (low, middle)
    return low


def _record(descriptor: int, at: int, index: int) -> int:
    return int.from_bytes(os.pread(descriptor, _WORD, at + CHUNK.itemsize + index * _WORD), "little")


def _has_ended(descriptor: int, at: int, size: int, records: int) -> bool:
    """Whether nothing more comes: the chunk with so many records is full, or its thread has ended."""
    if records == (size - CHUNK.itemsize) // _WORD:
        return True
    return bool(records) and is_end(_record(descriptor, at, records - 1))

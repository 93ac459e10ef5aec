"""How many events a recording has so far, for somebody who watches it grow."""

from __future__ import annotations

import contextlib
import os
import struct

from giltrace.process.folder import Folder
from giltrace.recording.folder import GIL_NAME
from giltrace.recording.layout import CHUNK, CHUNK_MAGIC, HEADER_SIZE, RECORD

_PAGE = 4096


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
        self._open: dict[int, int] = {}
        self._complete = 0

    def count(self) -> int:
        try:
            with self._folder.opened(self._name) as descriptor:
                self._find_chunks(descriptor)
                filled = {at: _filled(descriptor, at, size) for at, size in self._open.items()}
        except OSError:
            return self._complete
        for at, records in filled.items():
            if records == (self._open[at] - CHUNK.itemsize) // RECORD.itemsize:
                del self._open[at]
                self._complete += records
        return self._complete + sum(filled[at] for at in self._open)

    def _find_chunks(self, descriptor: int) -> None:
        length = os.fstat(descriptor).st_size
        while len(head := os.pread(descriptor, 8, self._next)) == 8:
            magic, size = struct.unpack("<II", head)
            if magic != CHUNK_MAGIC or size < _PAGE or self._next + size > length:
                return
            self._open[self._next] = size
            self._next += size


def _filled(descriptor: int, at: int, size: int) -> int:
    """How many records a chunk holds: they are written in order and never 0."""
    low, high = 0, (size - CHUNK.itemsize) // RECORD.itemsize
    first = at + CHUNK.itemsize
    while low < high:
        middle = (low + high) // 2
        written = any(os.pread(descriptor, RECORD.itemsize, first + middle * RECORD.itemsize))
        low, high = (middle + 1, high) if written else (low, middle)
    return low

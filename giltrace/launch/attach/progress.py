"""How many events a recording has so far, for somebody who watches it grow."""

from __future__ import annotations

import mmap
import os
import struct
from pathlib import Path

from giltrace.recording.layout import CHUNK, CHUNK_MAGIC, HEADER_SIZE, RECORD

_PAGE = 4096


class EventCount:
    """Counts the records in the files of `folder`; each count costs as much as there are threads, not events."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, _File] = {}

    def count(self) -> int:
        """Return how many there are now."""
        for name in os.listdir(self._folder):
            if name.startswith("gil-") and name not in self._files:
                self._files[name] = _File(self._folder / name)
        return sum(file.count() for file in self._files.values())


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._next = HEADER_SIZE
        self._open: dict[int, int] = {}
        self._complete = 0

    def count(self) -> int:
        try:
            with self._path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
                self._find_chunks(data)
                filled = {at: _filled(data, at, size) for at, size in self._open.items()}
        except (OSError, ValueError):
            return self._complete
        for at, records in filled.items():
            if records == (self._open[at] - CHUNK.itemsize) // RECORD.itemsize:
                del self._open[at]
                self._complete += records
        return self._complete + sum(filled[at] for at in self._open)

    def _find_chunks(self, data: mmap.mmap) -> None:
        while self._next + CHUNK.itemsize <= len(data):
            magic, size = struct.unpack_from("<II", data, self._next)
            if magic != CHUNK_MAGIC or size < _PAGE or self._next + size > len(data):
                return
            self._open[self._next] = size
            self._next += size


def _filled(data: mmap.mmap, at: int, size: int) -> int:
    """How many records a chunk holds: they are written in order and never 0."""
    low, high = 0, (size - CHUNK.itemsize) // RECORD.itemsize
    first = at + CHUNK.itemsize
    while low < high:
        middle = (low + high) // 2
        (record,) = struct.unpack_from("<Q", data, first + middle * RECORD.itemsize)
        low, high = (middle + 1, high) if record else (low, middle)
    return low

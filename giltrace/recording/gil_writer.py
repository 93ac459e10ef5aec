"""Write GIL events from outside the target, in the native tracer's own file format (native/FORMAT.md).

Readers may read the file while it grows: a chunk is whole once its head is, and a record is one word.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giltrace.errors import OutputError
from giltrace.recording import layout

_FIRST_CHUNK = 1 << 12
_LARGEST_CHUNK = 1 << 20
_HEAD = layout.CHUNK.itemsize


@dataclass
class _Chunk:
    """A thread's newest chunk: where it is, how large, how far filled, and the time that its records count from."""

    offset: int
    size: int
    filled: int
    base: int
    head: npt.NDArray[np.void]


class GilWriter:
    """One `gil-<pid>-<n>.bin` in `folder`; `header` has dtype `layout.HEADER`, one element, and no magic yet.

    Raises `OutputError` if the file cannot be created. When the disk is full, events are lost and counted.
    """

    def __init__(self, folder: Path, header: npt.NDArray[np.void]) -> None:
        self.header = header
        self._chunks: dict[int, _Chunk] = {}
        self._names: dict[int, str] = {}
        self._end = layout.HEADER_SIZE
        pid = int(header["pid"][0])
        path = next(p for n in range(1 << 16) if not (p := folder / f"gil-{pid}-{n}.bin").exists())
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            os.posix_fallocate(self._fd, 0, layout.HEADER_SIZE)
        except OSError as error:
            raise OutputError(f"cannot write {path}: {error.strerror}", "free space, or choose another place") from None
        self.write_header()
        header["magic"] = layout.MAGIC
        self.write_header()

    def write_header(self) -> None:
        """Bring the head of the file up to date with `header`."""
        os.pwrite(self._fd, self.header.tobytes(), 0)

    def name(self, thread: int, name: str) -> None:
        """Say what a thread is called; stored with its chunk, as soon as it has one."""
        self._names[thread] = name
        chunk = self._chunks.get(thread)
        if chunk is not None:
            chunk.head["name"] = _cut(name)
            os.pwrite(self._fd, chunk.head.tobytes(), chunk.offset)

    def append(self, events: npt.NDArray[np.void], tids: npt.NDArray[np.uint32]) -> None:
        """Append `events` (fields time in ns, thread, gil, kind, flags), in order of time; `tids` by thread."""
        order = np.argsort(events["thread"], kind="stable")
        events = events[order]
        cuts = np.flatnonzero(np.diff(events["thread"])) + 1
        for part in np.split(events, cuts) if len(events) else []:
            thread = int(part["thread"][0])
            self._append(thread, int(tids[thread]), part)

    def _append(self, thread: int, tid: int, events: npt.NDArray[np.void]) -> None:
        while len(events):
            chunk = self._chunks.get(thread)
            within = 0
            if chunk is not None:
                room = (chunk.size - chunk.filled) // layout.RECORD.itemsize
                reach = np.uint64(chunk.base + (1 << layout.TIME_BITS))
                within = min(room, int(np.searchsorted(events["time"], reach)))
            if chunk is None or within == 0:
                if not self._begin(thread, tid, int(events["time"][0])):
                    return self._lose(thread, len(events))
                continue
            data = _words(events[:within], chunk.base).tobytes()
            os.pwrite(self._fd, data, chunk.offset + chunk.filled)
            chunk.filled += len(data)
            events = events[within:]
        return None

    def _begin(self, thread: int, tid: int, base: int) -> bool:
        """Begin a chunk; False if there is no room for one."""
        old = self._chunks.get(thread)
        size = _FIRST_CHUNK if old is None else min(4 * old.size, _LARGEST_CHUNK)
        try:
            os.posix_fallocate(self._fd, self._end, size)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
                raise
            return False
        head = np.zeros(1, layout.CHUNK)
        head["size"], head["thread"], head["tid"], head["base"] = size, thread, tid, base
        head["sequence"] = 0 if old is None else int(old.head["sequence"][0]) + 1
        head["magic"] = layout.CHUNK_MAGIC
        head["name"] = _cut(self._names.get(thread, ""))
        os.pwrite(self._fd, head.tobytes(), self._end)
        self._chunks[thread] = _Chunk(self._end, size, _HEAD, base, head)
        self._end += size
        return True

    def _lose(self, thread: int, count: int) -> None:
        chunk = self._chunks.get(thread)
        if chunk is None:
            self.header["lost"] += np.uint64(count)
            self.write_header()
        else:
            chunk.head["lost"] += np.uint64(count)
            os.pwrite(self._fd, chunk.head.tobytes(), chunk.offset)

    def close(self) -> None:
        """Bring the head up to date and close the file."""
        self.write_header()
        os.close(self._fd)


def _cut(name: str) -> bytes:
    """As much of a name as there is room for, in whole characters, and a NUL."""
    return name.encode()[: layout.CHUNK["name"].itemsize - 1].decode(errors="ignore").encode()


def _words(events: npt.NDArray[np.void], base: int) -> npt.NDArray[np.uint64]:
    """The records of `events`, in a chunk that begins at `base`; the core is not known."""
    kind = events["kind"].astype(np.uint64)
    words: npt.NDArray[np.uint64] = (events["time"].astype(np.uint64) - np.uint64(base)) | kind << np.uint64(
        layout.KIND_SHIFT
    )
    words |= events["flags"].astype(np.uint64) << np.uint64(layout.FLAG_SHIFT)
    words |= events["gil"].astype(np.uint64) << np.uint64(layout.GIL_SHIFT)
    core = np.where(kind == layout.Kind.ACQUIRE, np.uint64(layout.NO_CORE), np.uint64(0))
    words |= core << np.uint64(layout.CORE_SHIFT)
    return words

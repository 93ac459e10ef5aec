"""Write the tracer's file piece by piece, as it grows, by hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from giltrace.recording import layout
from giltrace.recording.layout import Kind

SIZE = 4096
_HEAD = layout.CHUNK.itemsize


def word(kind: Kind, time: int, *, flags: int = 0, core: int = 0, gil: int = 0) -> int:
    return (
        time
        | kind << layout.KIND_SHIFT
        | flags << layout.FLAG_SHIFT
        | gil << layout.GIL_SHIFT
        | core << layout.CORE_SHIFT
    )


class TracerFile:
    """A `gil-<pid>-<image>.bin` of this very process, whose ticks are nanoseconds."""

    def __init__(
        self,
        folder: Path,
        image: int = 0,
        *,
        status: layout.Status = layout.Status.GIL_SEEN,
        executable: str = "",
        ppid: int = 0,
        start_ns: int = 0,
    ) -> None:
        self.path = folder / f"gil-{os.getpid()}-{image}.bin"
        head = np.zeros(1, layout.HEADER)
        head["magic"], head["version"] = layout.MAGIC, layout.VERSION
        head["pid"], head["clock"], head["python"] = os.getpid(), layout.Clock.MONOTONIC_NS, b"3.13.0 (main)"
        head["status"], head["executable"], head["ppid"] = status, os.fsencode(executable), ppid
        head["start_ns"] = head["start_ticks"] = start_ns
        self.path.write_bytes(head.tobytes().ljust(layout.HEADER_SIZE, b"\0"))
        self._filled: dict[int, int] = {}

    def allocate(self, chunks: int = 1) -> int:
        """Grow the file; returns the place of the first new chunk."""
        at = self.path.stat().st_size
        os.truncate(self.path, at + chunks * SIZE)
        return at

    def begin(
        self,
        at: int,
        thread: int,
        sequence: int = 0,
        *,
        base: int = 0,
        name: str = "",
        lost: int = 0,
        size: int = SIZE,
    ) -> int:
        """Publish the head of a chunk, which is empty."""
        head = np.zeros(1, layout.CHUNK)
        head["magic"], head["size"], head["thread"], head["tid"] = layout.CHUNK_MAGIC, size, thread, 100 + thread
        head["sequence"], head["base"], head["name"], head["lost"] = sequence, base, name.encode(), lost
        self._write(at, head.tobytes().ljust(size, b"\0"))
        self._filled[at] = 0
        return at

    def stretch(self, chunks: int = 1) -> list[int]:
        """Publish the head of a stretch as long as so many ordinary chunks; where its small chunks are to begin."""
        at, size = self.allocate(chunks), chunks * SIZE
        head = np.array([(layout.STRETCH_MAGIC, size, layout.SMALL_CHUNK, 0)], layout.STRETCH)
        self._write(at, head.tobytes())
        return list(range(at + layout.SMALL_CHUNK, at + size, layout.SMALL_CHUNK))

    def small(self, at: int, thread: int, sequence: int = 0, *, base: int = 0, name: str = "") -> int:
        return self.begin(at, thread, sequence, base=base, name=name, size=layout.SMALL_CHUNK)

    def chunk(self, thread: int, sequence: int = 0, *, base: int = 0, name: str = "") -> int:
        return self.begin(self.allocate(), thread, sequence, base=base, name=name)

    def write(self, at: int, *words: int) -> None:
        """Append records to a chunk."""
        data = np.array(words, np.uint64).tobytes()
        self._write(at + _HEAD + 8 * self._filled[at], data)
        self._filled[at] += len(words)

    def overwrite(self, at: int, index: int, value: int) -> None:
        """Change one record of a chunk."""
        self._write(at + _HEAD + 8 * index, np.array([value], np.uint64).tobytes())

    def _write(self, at: int, data: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(data)

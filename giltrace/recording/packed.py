"""Chunks that the recorder has packed while the program goes on: `packed-<pid>-<n>.bin` beside `gil-<pid>-<n>.bin`.

A chunk that its thread has left is never written to again. It is packed, and a hole put in its place, so that the file
keeps its layout and loses its size. What was packed is laid over the file again where that is read (`Laid`).

The file is frames, one after the other; the last one may be torn:

     0  u32  magic, GTPK
     4  u32  how many bytes the packed records have
     8  u64  where the chunk began in its file
    16  u32  how long the chunk was
    20  u32  how many words of 8 bytes of it were written, its head's too
    24  the chunk's head, as it was (`layout.CHUNK`)
   ...  the packed records: each less the one before it (modulo 2**64), then the first bytes of all, the second bytes of
        all, and so on, by zstd
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import zstandard

from giltrace.recording import chunks, layout
from giltrace.recording.chunks import MAX_CHUNK
from giltrace.recording.door import Damaged, Source

_MAGIC = 0x4B505447
_FRAME = struct.Struct("<2IQ2I")
FRAME_SIZE = _FRAME.size
_HEAD = layout.CHUNK.itemsize
_WORD = layout.RECORD.itemsize
_LEVEL = 1
#: What would be packed to a smaller part than this is not packed: what claims to be was made to fill memory.
DENSEST = 500


class Frame(NamedTuple):
    """One packed chunk: where it was and how long, how many `words` it had, its head, and where its records are."""

    at: int
    size: int
    words: int
    head: bytes
    place: int
    length: int


def packed_name(gil_file: Path) -> Path:
    """What the file beside `gil_file` is called."""
    return gil_file.with_name("packed" + gil_file.name.removeprefix("gil"))


def pack(at: int, chunk: bytes, written: int) -> bytes:
    """The frame of a `chunk` that begins at the place `at` and of which so many bytes were `written`."""
    words = np.frombuffer(chunk, np.uint64, written // _WORD)
    records = words[_HEAD // _WORD :]
    steps = np.diff(records, prepend=np.uint64(0))
    planes = np.ascontiguousarray(steps.view(np.uint8).reshape(-1, _WORD).T)
    data = zstandard.ZstdCompressor(level=_LEVEL).compress(planes.tobytes())
    return _FRAME.pack(_MAGIC, len(data), at, len(chunk), len(words)) + chunk[:_HEAD] + data


def frames(source: Source) -> Iterator[Frame]:
    """Yield what was packed; raises `Damaged` at what makes no sense, but not at a torn end."""
    place = 0
    while len(data := source.read(place, _FRAME.size + _HEAD)) == _FRAME.size + _HEAD:
        magic, length, at, size, words = _FRAME.unpack_from(data)
        fits = _HEAD // _WORD <= words <= size // _WORD and max(size, length) <= MAX_CHUNK and at <= 1 << 62
        if magic != _MAGIC or not fits or words * _WORD > DENSEST * (length + _HEAD):
            raise Damaged(source.path, f"what stands at {place} is no packed chunk", "record again")
        place += len(data)
        if place + length > source.size:
            return
        yield Frame(at, size, words, data[_FRAME.size :], place, length)
        place += length


class Laid(Source):
    """The tracer's file at `path` with what was packed of it laid over: where that was, it reads as it did.

    Raises as `Source` does, and `Damaged` where what was packed makes no sense.
    """

    _packed: Source | None = None

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._frames: list[Frame] = []
        try:
            self._packed = Source(packed_name(path))
            self._frames = sorted(frames(self._packed))
        except FileNotFoundError:
            pass
        except BaseException:
            self.close()
            raise
        self._begins = np.array([frame.at for frame in self._frames], np.int64)
        self.size = max([self.size, *(frame.at + frame.size for frame in self._frames)])

    def close(self) -> None:
        """Let go of the files."""
        super().close()
        if self._packed is not None:
            self._packed.close()

    def read(self, at: int, count: int) -> bytes:
        """Read as if nothing had been packed."""
        end = min(at + count, self.size)
        number = max(int(np.searchsorted(self._begins, at, "right")) - 1, 0)
        parts: list[bytes] = []
        for frame in self._frames[number:]:
            if frame.at >= end:
                break
            if at < frame.at:
                parts.append(self._plain(at, frame.at))
            low, high = max(at, frame.at), min(end, frame.at + frame.size)
            if low < high:
                parts.append(self._unpacked(frame, low - frame.at, high - frame.at))
                at = high
        if at < end:
            parts.append(self._plain(at, end))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def stretches(self) -> Iterator[tuple[int, int]]:
        """Yield from where to where there is data, packed or not."""
        pairs = [(frame.at, frame.at + frame.size) for frame in self._frames]
        pairs += super().stretches()
        begin = end = 0
        for low, high in sorted(pairs):
            if low > end:
                if end > begin:
                    yield begin, end
                begin = low
            end = max(end, high)
        if end > begin:
            yield begin, end

    def _plain(self, at: int, end: int) -> bytes:
        """What the file has there, zeros beyond its end."""
        return super().read(at, end - at).ljust(end - at, b"\0")

    def _unpacked(self, frame: Frame, low: int, high: int) -> bytes:
        if high <= _HEAD:
            return frame.head[low:high]
        assert self._packed is not None
        data = self._packed.read(frame.place, frame.length)
        size = frame.words * _WORD - _HEAD
        try:
            planes = zstandard.ZstdDecompressor().decompress(data, max_output_size=max(size, 1))
        except zstandard.ZstdError as error:
            raise Damaged(self._packed.path, f"what was packed at {frame.place}: {error}", "record again") from None
        if len(planes) != size:
            raise Damaged(self._packed.path, f"what was packed at {frame.place} is too short", "record again")
        steps = np.frombuffer(planes, np.uint8).reshape(_WORD, -1).T
        records: npt.NDArray[np.uint64] = np.ascontiguousarray(steps).view(np.uint64).ravel()
        whole = frame.head + np.cumsum(records, dtype=np.uint64).tobytes()
        return whole.ljust(frame.size, b"\0")[low:high]


def size_of(gil_file: Path, enough: int) -> int:
    """How many bytes of records a file of the tracer's has, packed or not, counted up to about `enough` of them.

    The file may be much larger: room is made ahead of need, of all that may ever be needed before a seccomp filter.
    """
    total = 0
    with Laid(gil_file) as source:
        for _, written, _ in chunks.read(source, chunks.find(source)):
            total += written.records.nbytes
            if total > enough:
                break
    return total

"""Raw perf records as the kernel wrote them, one after the other: what `sched-<cpu>.bin` and `maps.bin` are made of.

Every record starts with a header (u32 type, u16 misc, u16 size) and ends, but for samples, with the 24 bytes that
`sample_id_all` appends: u32 pid, u32 tid, u64 time (CLOCK_MONOTONIC ns), u32 cpu, u32 reserved.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording.door import MAX_ID, read_data
from giltrace.recording.perf_types import Type

Words = npt.NDArray[np.uint64]
Index = npt.NDArray[np.int64]


#: Of a COMM: by an exec.
MISC_EXEC = 1 << 13
LOW = np.uint64(0xFFFFFFFF)

_LAST_TYPE = 32
#: So many words are looked through at a time.
_PIECE = 1 << 21
_TRAILER_WORDS = 3
#: The size that a record of each type has at least: its header, what is read of it, its trailer.
_LEAST_BYTES = np.full(_LAST_TYPE + 1, 32, np.uint64)
_LEAST_BYTES[[Type.LOST, Type.COMM, Type.EXIT, Type.FORK]] = 48, 48, 56, 56
_LEAST_BYTES[[Type.SAMPLE, Type.MMAP2]] = 48, 104


def load(path: Path) -> Words:
    """Read a file of records as words, as the door does."""
    data = read_data(path)
    return np.frombuffer(data, "<u8", count=len(data) // 8)


def record_starts(words: Words) -> Index:
    """Return the index of the first word of every whole record, in order."""
    if not len(words):
        return np.empty(0, np.int64)
    starts = _plausible(words)
    ends = (words[starts] >> np.uint64(51)).view(np.int64)
    ends += starts
    if not len(starts) or starts[0] != 0 or not np.array_equal(starts[1:], ends[:-1]):
        return _walk(starts, ends, len(words))
    return starts if ends[-1] <= len(words) else starts[:-1]


def kinds(words: Words, starts: Index) -> npt.NDArray[np.uint8]:
    """The `Type` of each record."""
    found: npt.NDArray[np.uint8] = (words[starts] & LOW).astype(np.uint8)
    return found


def _plausible(words: Words) -> Index:
    """The words that could be a header; inside a record only a freak pid and tid could pass for one."""
    found = [np.empty(0, np.int64)]
    for at in range(0, len(words), _PIECE):
        piece = words[at : at + _PIECE]
        # One integer less than that, of 32 bits: the type 0 becomes the largest of all.
        some = np.flatnonzero(piece.view("<u4")[::2] - np.uint32(1) < _LAST_TYPE)
        sizes = piece[some] >> np.uint64(48)
        whole = (sizes & np.uint64(7)) == 0
        found.append(some[whole & (sizes >= _LEAST_BYTES[piece[some] & LOW])] + at)
    return np.concatenate(found)


def _walk(starts: Index, ends: Index, size: int) -> Index:
    """Follow the records from one to the next: linear, but slower than seeing all at once."""
    following = dict(zip(starts.tolist(), ends.tolist(), strict=True))
    found: list[int] = []
    position = 0
    while position < following.get(position, 0) <= size:
        found.append(position)
        position = following[position]
    return np.array(found, np.int64)


def is_broken(words: Words, starts: Index) -> bool:
    """Whether something other than a torn record follows the last whole one."""
    end = int(starts[-1]) + (int(words[starts[-1]]) >> 51) if len(starts) else 0
    return end < len(words) and not len(_plausible(words[end : end + 1]))


def trailers(words: Words, starts: Index) -> Index:
    """Where the trailer of each record begins: a word each of pid and tid, of the time, and of the core."""
    found: Index = starts + (words[starts] >> np.uint64(51)).astype(np.int64) - _TRAILER_WORDS
    return found


def first_time(words: Words) -> int:
    """The time of the first record in ns, 0 if there is none."""
    starts = record_starts(words)[:1]
    if not len(starts):
        return 0
    if int(words[starts[0]]) & 0xFFFFFFFF == Type.SAMPLE:
        return int(words[starts[0] + 3])
    return int(words[trailers(words, starts)[0] + 1])


class Rare(NamedTuple):
    """A record of a thread's birth, end or name, or of a mapping; `body` is what lies between header and trailer."""

    time: int
    kind: int
    misc: int
    body: bytes

    @property
    def ids(self) -> tuple[int, int, int, int]:
        """Process, its parent, thread and its parent: of a COMM and an MMAP2, process and thread."""
        first, second, third, fourth = struct.unpack_from("<4I", self.body.ljust(16, b"\0"))
        return first, second, third, fourth

    def makes_sense(self) -> bool:
        """Whether its numbers are those of a process and a thread."""
        pid, other, tid, _ = self.ids
        return 0 < pid <= MAX_ID and 0 < (other if self.kind in (Type.COMM, Type.MMAP2) else tid) <= MAX_ID


def rare_records(words: Words, starts: Index) -> list[Rare]:
    """Take these records apart."""
    data = words.tobytes() if len(starts) else b""
    records = []
    for start, end in zip(starts.tolist(), trailers(words, starts).tolist(), strict=True):
        header = int(words[start])
        body = data[8 * start + 8 : 8 * end]
        records.append(Rare(int(words[end + 1]), header & 0xFFFFFFFF, header >> 32 & 0xFFFF, body))
    return records

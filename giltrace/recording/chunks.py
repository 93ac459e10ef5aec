"""The chunks of one of the tracer's files (native/FORMAT.md): where they lie, and what was written of them.

There may be hundreds of thousands, small ones most of all, so they are read and checked by the thousand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording import layout
from giltrace.recording.door import MAX_COUNT, MAX_ID, Source
from giltrace.recording.events import Array

#: Chunks begin at multiples of this, but for those of a stretch.
ALIGNMENT = 4096
#: No tracer writes larger ones.
MAX_CHUNK = 4 << 20

_WORD = layout.RECORD.itemsize
_HEAD_WORDS = layout.CHUNK.itemsize // _WORD
# What of a chunk's head, or a stretch's, says what it is.
FIRST = struct.Struct("<6I2Q")
_PLACE = np.dtype([("at", "<i8"), ("size", "<i8"), ("sequence", "<i8"), ("base", "<u8")])
#: No chunk begins later: in ticks.
_END = 1 << 62
_TOGETHER = 4 << 20

Words = npt.NDArray[np.uint64]


class Written(NamedTuple):
    """The records of some chunks, one after the other: those of chunk `i` are ``records[bounds[i]:bounds[i + 1]]``.

    Each chunk has the number of its thread, and the ticks that its records count from.
    """

    threads: npt.NDArray[np.int64]
    bases: Words
    records: Words
    bounds: npt.NDArray[np.int64]

    def last_stacks(self) -> list[int]:
        """The number that the last STACK of each chunk gives; -1 if it has none."""
        given = np.flatnonzero((self.records >> np.uint64(layout.KIND_SHIFT)) & np.uint64(31) == layout.Kind.STACK)
        last = np.append(given, -1)[np.searchsorted(given, self.bounds[1:]) - 1]
        has = last >= self.bounds[:-1]
        number = np.zeros(len(has), np.int64)
        number[has] = stack_numbers(self.records[last[has]])
        number[~has] = -1
        return [int(each) for each in number]


def stack_numbers(records: Words) -> npt.NDArray[np.int64]:
    """The numbers of stacks that STACKs and HOLDER_STACKs give; 0 for what no table is long enough for."""
    number: npt.NDArray[np.int64] = (records & np.uint64(0xFFFFFFFF)).astype(np.int64)
    number[number >> 31 != 0] = 0
    return number


def makes_sense(magic: Any, size: Any, tid: Any, lost: Any) -> Any:
    """Whether these are of a chunk's head: numbers, or arrays of them."""
    return (magic == layout.CHUNK_MAGIC) & (size <= MAX_CHUNK) & (tid > 0) & (tid <= MAX_ID) & (lost <= MAX_COUNT)


def is_chunk(head: bytes, small: int = 0) -> bool:
    """Whether these bytes are the head of a chunk, in a stretch of `small` ones or by itself, and all makes sense."""
    magic, size, _, tid, _, _, _, lost = FIRST.unpack_from(head)
    fits = size == small if small else size >= ALIGNMENT and size % ALIGNMENT == 0
    return fits and bool(makes_sense(magic, size, tid, lost))


def small_chunks(head: bytes) -> tuple[int, int]:
    """How long the stretch is that these bytes are the head of, and each chunk in it; (0, 0) if they are none."""
    magic, size, chunk = FIRST.unpack_from(head)[:3]
    fits = layout.CHUNK.itemsize < chunk <= size // 2 and chunk % _WORD == 0
    if magic != layout.STRETCH_MAGIC or not ALIGNMENT <= size <= MAX_CHUNK or size % ALIGNMENT or not fits:
        return 0, 0
    return size, chunk


def heads_within(data: bytes, chunk: int) -> Array:
    """What stands where the small chunks of the stretch `data`, each of so many bytes, have their heads."""
    step = np.dtype({"names": ["head"], "formats": [layout.CHUNK], "offsets": [0], "itemsize": chunk})
    return np.frombuffer(data, step, len(data) // chunk)["head"][1:]


def find(source: Source, refused: list[int] | None = None) -> Array:
    """Where chunks are that make sense, how long, and which of their thread's, and since when (`_PLACE`).

    Space that was allocated but never begun is stepped over, and so is a chunk whose head makes no sense: where it
    begins is added to `refused`. In a ring, and among the small ones, the order is not that of the sequence.
    """
    single: list[tuple[int, int, int, int]] = []
    parts: list[Array] = []
    refused = [] if refused is None else refused
    for at, head in _pieces(source):
        size, chunk = small_chunks(head)
        if chunk:
            parts.append(_within(source.read(at, size), at, chunk, refused))
        elif is_chunk(head):
            _, size, _, _, sequence, _, base, _ = FIRST.unpack_from(head)
            single.append((at, size, sequence, base))
        elif int.from_bytes(head[:4], "little") == layout.CHUNK_MAGIC:
            refused.append(at)
    return np.concatenate([np.array(single, _PLACE), *parts])


def _pieces(source: Source) -> Iterator[tuple[int, bytes]]:
    """Where a chunk or a stretch may begin, and the first bytes there."""
    after = layout.HEADER_SIZE
    for begin, end in source.stretches():
        at = max(begin // ALIGNMENT * ALIGNMENT, after)
        while at + layout.CHUNK.itemsize <= end:
            head = source.read(at, FIRST.size)
            if len(head) < FIRST.size:
                return
            yield at, head
            size = small_chunks(head)[0] or (FIRST.unpack_from(head)[1] if is_chunk(head) else ALIGNMENT)
            at = after = at + size


def _within(stretch: bytes, start: int, chunk: int, refused: list[int]) -> Array:
    heads = heads_within(stretch.ljust(-(-len(stretch) // chunk) * chunk, b"\0"), chunk)
    at = start + chunk * np.arange(1, len(heads) + 1)
    good = makes_sense(heads["magic"], heads["size"], heads["tid"], heads["lost"]) & (heads["size"] == chunk)
    refused += at[~good & (heads["magic"] == layout.CHUNK_MAGIC)].tolist()
    places = np.empty(int(good.sum()), _PLACE)
    places["at"], places["size"] = at[good], chunk
    places["sequence"], places["base"] = heads["sequence"][good], heads["base"][good]
    return places


def read(source: Source, places: Array) -> Iterator[tuple[Array, Written, int]]:
    """The heads of the chunks at `places` and their records, some at a time, in order of their bases.

    The number is the least base of those that are still to come: what was written before it is all there.
    """
    places = places[np.lexsort((places["sequence"], places["base"]))]
    cuts = np.flatnonzero(np.diff(np.cumsum(places["size"]) // _TOGETHER)) + 1
    reach = [*places["base"][cuts].tolist(), _END]
    for part, to_come in zip(np.split(places, cuts) if len(places) else [], reach, strict=bool(len(places))):
        yield (*_together(_words(source, part), part["size"] // _WORD), to_come)


def _words(source: Source, places: Array) -> Words:
    """All that is in these chunks, with as few readings as may be; where the file is cut off by now, zeros."""
    ends = places["at"] + places["size"]
    breaks = np.flatnonzero(places["at"][1:] != ends[:-1]) + 1
    first, last = np.append(0, breaks), np.append(breaks, len(places)) - 1
    runs = zip(places["at"][first].tolist(), ends[last].tolist(), strict=True)
    data = b"".join(source.read(at, end - at).ljust(end - at, b"\0") for at, end in runs)
    return np.frombuffer(data, np.uint64)


def _together(words: Words, sizes: npt.NDArray[np.int64]) -> tuple[Array, Written]:
    starts = np.cumsum(sizes) - sizes
    heads = words[starts[:, None] + np.arange(_HEAD_WORDS)].view(layout.CHUNK)[:, 0]
    # What was a chunk a moment ago may have been cut off since, or be another's.
    still = makes_sense(heads["magic"], heads["size"], heads["tid"], heads["lost"]) & (heads["size"] == sizes * _WORD)
    if len(sizes) == 1:
        records = words[_HEAD_WORDS:]
        records = records[: filled(records) if still[0] else 0]
        bounds = np.array([0, len(records)])
    else:
        within = np.arange(len(words)) - np.repeat(starts, sizes)
        empty = (words == 0) & (within >= _HEAD_WORDS)
        ends = np.minimum.reduceat(np.where(empty, within, np.repeat(sizes, sizes)), starts)
        ends[~still] = _HEAD_WORDS
        records = words[(within >= _HEAD_WORDS) & (within < np.repeat(ends, sizes))]
        bounds = np.append(0, np.cumsum(ends - _HEAD_WORDS))
    written = Written(heads["thread"].astype(np.int64), heads["base"].copy(), records, bounds)
    if not still.all():  # they have no records
        bounds = np.append(bounds[:-1][still], bounds[-1])
        written = Written(written.threads[still], written.bases[still], records, bounds)
    return heads[still], written


def filled(records: Words) -> int:
    """How many records were written: they are never 0, and what follows them is."""
    empty = records == 0
    return int(empty.argmax()) if empty.any() else records.size

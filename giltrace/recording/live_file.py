"""Follow one of the tracer's files while it is being written (native/FORMAT.md).

The tracer publishes a chunk's head last and each record with one store, so a reader needs no lock. In a ring, chunks
come back under another head: one that is the same before and after says that what was read in between is of one piece.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from giltrace.recording import layout
from giltrace.recording.chunks import ALIGNMENT, Words, filled, is_chunk, small_chunks
from giltrace.recording.door import Damaged, Source
from giltrace.recording.events import ThreadInfo
from giltrace.recording.gil_file import GilFile, cmdline_of, note_of, text_of
from giltrace.recording.stacks import LiveStacks

_WORD = layout.RECORD.itemsize
_HEAD_WORDS = layout.CHUNK.itemsize // _WORD
_FORCED = layout.RecordFlag.FORCED << layout.FLAG_SHIFT
_UNFORCED = layout.Kind.RELEASE << layout.KIND_SHIFT
_KIND_AND_FORCED = 7 << layout.KIND_SHIFT | _FORCED
_TIME = (1 << layout.TIME_BITS) - 1
#: Bytes of a chunk's head that tell whose it is: all but what the thread has lost, and its name.
_IDENTITY = 32
#: What is new of a chunk is mostly less.
_FIRST_READ = 4096
#: The tracer's own numbers for threads are smaller.
_EARLY = 1 << 31
# Chunks that were read to their end may come back as others: so many are remembered, and looked at per reading.
_CLOSED_KEPT, _CLOSED_CHECKED = 1 << 16, 2048


@dataclass(frozen=True)
class Piece:
    """New records of one thread as they were written: words whose times count from `base` (ticks).

    `sequence` is that of their chunk; `stack` the number of the thread's stack when the first of them was written.
    `late_forced`: the thread's last release, given with an earlier piece, has turned out to be a forced one.
    """

    thread: int
    sequence: int
    base: int
    stack: int
    info: ThreadInfo
    records: Words
    late_forced: bool = False


class _Chunk:
    """A chunk that is being read; `start`, `at` and `end` count words of the file, `identity` tells whose it is.

    `words` are those from `at` on, up to the first that was not written when they were read.
    """

    __slots__ = ("at", "base", "end", "identity", "sequence", "start", "words")

    def __init__(self, start: int, head: bytes) -> None:
        known = np.frombuffer(head, layout.CHUNK)[0]
        self.start, self.identity = start, head[:_IDENTITY]
        self.sequence, self.base = int(known["sequence"]), int(known["base"])
        self.at = start + _HEAD_WORDS
        self.end = start + int(known["size"]) // _WORD
        self.words = memoryview(b"").cast("Q")


class _Thread:
    """What is known of a thread that may still write: its chunks that were not read to the end yet, in order."""

    __slots__ = ("chunks", "expected", "info", "known", "lost", "release", "stack")

    def __init__(self) -> None:
        self.chunks: list[_Chunk] = []
        self.info = ThreadInfo(0, "")
        self.stack = self.lost = 0
        self.expected = self.known = -1
        # The last word that was read, if it is a release that may yet become a forced one, and its chunk.
        self.release: tuple[int, _Chunk] | None = None


class LiveFile:
    """One file, followed; `number` tells it apart from the others of its recording.

    `missed` counts chunks that were used again before they were read, `lost` what the tracer had no room for, and
    `impossible`, for the reader of all files, events of times that cannot be. `passed_over` are the GILs, by number,
    that were taken or released in records that were not given.
    """

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number
        self.missed = self.impossible = 0
        self.passed_over: set[int] = set()
        #: The addresses of GILs, by number, that the tracer has not met, and of which it is known who has them.
        self.unmet: dict[int, int] = {}
        self._lost = 0
        self.stacks: LiveStacks | None = None
        self._source = Source(path)
        self._threads: dict[int, _Thread] = {}
        # Threads that were given a number before their first record: by their ids, and by the tracer's numbers.
        self._early: dict[int, int] = {}
        self._renamed: dict[int, int] = {}
        # Of what was allocated: the stretches of words in which no chunk was seen yet.
        self._gaps: list[tuple[int, int]] = []
        # Stretches: the words that no small chunk was seen in yet, and how many each has.
        self._stretches: list[tuple[int, int, int]] = []
        self._seen = layout.HEADER_SIZE // _WORD
        self._closed: deque[_Chunk] = deque(maxlen=_CLOSED_KEPT)
        self._read_header()
        self.clock = self.header.clock
        self.pid, self.ppid = (int(self.header.header[field]) for field in ("pid", "ppid"))
        self.start = int(self.header.header["start_ns"])
        self.cmdline = cmdline_of(self.header)
        self.executable = text_of(bytes(self.header.header["executable"]))

    @property
    def python(self) -> str:
        """What ``Py_GetVersion()`` said."""
        return text_of(bytes(self.header.header["python"]))

    @property
    def note(self) -> str:
        """Why nothing was recorded, if so."""
        return note_of(self.header.header)

    @property
    def lost(self) -> int:
        """Events that the tracer had no room for, or that were `impossible`."""
        now = sum(thread.info.lost for thread in self._threads.values())
        return int(self.header.header["lost"]) + self._lost + now + self.impossible

    @property
    def lost_stacks(self) -> int:
        """Events whose stack the tracer had no room for."""
        return int(self.header.header["lost_stacks"])

    @property
    def gils(self) -> list[int]:
        """The address of each GIL's mutex, by GIL number, of those that were used."""
        head = self.header.header
        return [int(address) for address in head["gils"][: int(head["gil_count"])]]

    def address_of(self, gil: int) -> int:
        """The address of a GIL's mutex; 0 if it is not known."""
        return next((address for address in self.gils[gil : gil + 1] if address), self.unmet.get(gil, 0))

    def number_of(self, tid: int) -> int:
        """The number of the thread with that id, which it keeps when it comes to write its first record."""
        for number, thread in self._threads.items():
            if thread.info.tid == tid:
                return self._renamed.get(number, number)
        return self._early.setdefault(tid, _EARLY + len(self._early) + len(self._renamed))

    def read(self, until: int, since: int = 0, *, last: bool = False) -> Iterator[Piece]:
        """Yield what is new up to the tick `until`; of each thread, what went before `since` is passed over.

        `last`: nobody writes any more.
        """
        self._read_header()
        self._grow()
        self._recheck()
        self._find_chunks()
        self._find_small()
        for number, thread in list(self._threads.items()):
            newest = thread.chunks[-1].sequence
            if last:
                thread.known = newest
            yield from self._read_thread(number, until, since)
            thread.known = newest

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def _read_header(self) -> None:
        head = self._source.read(0, layout.HEADER_SIZE)
        if len(head) < layout.HEADER_SIZE:
            raise Damaged(self.path, "it was cut off meanwhile")
        self.header = GilFile.of(self.path, head)
        version = re.match(r"3\.(\d+)\.", self.python)
        if self.stacks is None and version:
            path = self.path.with_name("stacks" + self.path.name.removeprefix("gil"))
            self.stacks = LiveStacks(path, (3, int(version[1])))

    def _grow(self) -> None:
        self._source.refresh()
        words = self._source.size // _WORD
        if words > self._seen:
            self._gaps.append((self._seen, words))
            self._seen = words

    def _head(self, start: int, count: int = layout.CHUNK.itemsize) -> bytes:
        return self._source.read(start * _WORD, count)

    def _is_still(self, chunk: _Chunk) -> bool:
        """Whether a chunk is nobody else's by now."""
        return self._head(chunk.start, _IDENTITY) == chunk.identity

    def _recheck(self) -> None:
        """Give up the chunks, of those read to their end, that are somebody else's by now."""
        for _ in range(min(len(self._closed), _CLOSED_CHECKED)):
            chunk = self._closed.popleft()
            if self._is_still(chunk):
                self._closed.append(chunk)
            else:
                self._gaps.append((chunk.start, chunk.end))

    def _find_chunks(self) -> None:
        """Look for heads where none was seen so far.

        A record never looks like a head: its kind, which is never 0, lies where a head's size has zeros.
        """
        gaps, self._gaps = self._gaps, []
        for low, high in gaps:
            at = begin = low
            while at + _HEAD_WORDS <= high:
                head = self._head(at)
                size = int.from_bytes(head[4:8], "little") // _WORD
                whole = len(head) == layout.CHUNK.itemsize and at + size <= high
                small = small_chunks(head)[1] // _WORD if whole else 0
                if not whole or not (small or is_chunk(head)):
                    at += ALIGNMENT // _WORD
                    # A hole has no heads.
                    at = max(self._source.data_from(at * _WORD) // ALIGNMENT * ALIGNMENT // _WORD, at)
                    continue
                if small:
                    self._stretches.append((at + small, at + size, small))
                else:
                    self._add(at, head)
                if at > begin:
                    self._gaps.append((begin, at))
                at = begin = at + size
            if begin < high:
                self._gaps.append((begin, high))

    def _find_small(self) -> None:
        """Look for the heads of small chunks: those of a stretch are begun in their order."""
        stretches, self._stretches = self._stretches, []
        for low, high, size in stretches:
            data = self._source.read(low * _WORD, (high - low) * _WORD)
            while low < high and any(data[:_WORD]):
                if is_chunk(data[: size * _WORD].ljust(layout.CHUNK.itemsize, b"\0"), size * _WORD):
                    self._add(low, data[: layout.CHUNK.itemsize])
                low, data = low + size, data[size * _WORD :]
            if low < high:
                self._stretches.append((low, high, size))

    def _add(self, start: int, head: bytes) -> None:
        thread = self._threads.setdefault(int.from_bytes(head[8:12], "little"), _Thread())
        thread.chunks.append(_Chunk(start, head))
        thread.chunks.sort(key=lambda chunk: chunk.sequence)

    def _load(self, chunk: _Chunk) -> None:
        """Read what was written of a chunk since it was last read: its length is not known before."""
        at, room = chunk.at * _WORD, (chunk.end - chunk.at) * _WORD
        data = self._source.read(at, min(_FIRST_READ, room))
        while len(data) < room and any(data[-_WORD:]):
            more = self._source.read(at + len(data), min(len(data), room - len(data)))
            if not more:
                break
            data += more
        count = filled(np.frombuffer(data, np.uint64, len(data) // _WORD))
        chunk.words = memoryview(data)[: count * _WORD].cast("Q")

    def _read_thread(self, number: int, until: int, since: int) -> Iterator[Piece]:
        thread = self._threads[number]
        while thread.chunks:
            chunk = thread.chunks[0]
            follows = len(thread.chunks) > 1
            if chunk.sequence > max(thread.expected, thread.known, 0):
                # The one before it may have been published behind our back while we looked elsewhere: look again first.
                break
            self._learn(thread, chunk, since)
            if thread.info.tid in self._early:
                self._renamed[number] = self._early.pop(thread.info.tid)
            self._load(chunk)
            passed_over = follows and thread.chunks[1].base <= since
            if passed_over:
                piece = self._take(-1, thread, chunk, len(chunk.words), len(chunk.words))
            else:
                cut = _cut(chunk, until, left=follows)
                given = self._renamed.get(number, number)
                piece = self._take(given, thread, chunk, min(self._since(chunk, since), cut), cut)
            if piece is None:  # used again, or packed, under our eyes
                self.missed += not passed_over
                self._gaps.append((chunk.start, chunk.end))
                thread.chunks.pop(0)
                continue
            if piece.records.size:
                yield piece
                if layout.is_end(int(piece.records[-1])):
                    self._close_chunk(thread)
                    break
            if not follows or len(chunk.words):
                break
            self._close_chunk(thread)
        if not thread.chunks:
            self._lost += thread.info.lost
            del self._threads[number]

    def _close_chunk(self, thread: _Thread) -> None:
        chunk = thread.chunks.pop(0)
        thread.expected = chunk.sequence + 1
        thread.lost = thread.info.lost
        self._closed.append(chunk)

    def _learn(self, thread: _Thread, chunk: _Chunk, since: int) -> None:
        """Take the name, and what was lost, from the chunk's head; notice chunks after `since` that are gone unread."""
        if 0 <= thread.expected < chunk.sequence:
            self.missed += chunk.sequence - thread.expected if chunk.base > since else 0
            thread.stack = 0
        thread.expected = chunk.sequence
        raw = self._head(chunk.start)
        if len(raw) < layout.CHUNK.itemsize:
            raise Damaged(self.path, "it was cut off meanwhile")
        head = np.frombuffer(raw, layout.CHUNK)[0]
        name = text_of(bytes(head["name"])) or thread.info.name
        thread.info = ThreadInfo(int(head["tid"]), name, thread.lost + int(head["lost"]))

    def _since(self, chunk: _Chunk, since: int) -> int:
        """How many words go before the acquire or request that is under way at `since`, else before what follows the
        last release.
        """
        if since <= chunk.base:
            return 0
        for at in range(_cut(chunk, since, left=False) - 1, -1, -1):
            kind = chunk.words[at] >> layout.KIND_SHIFT & 7
            if kind in (layout.Kind.REQUEST, layout.Kind.ACQUIRE, layout.Kind.RELEASE):
                return at + (kind == layout.Kind.RELEASE)
        return 0

    def _take(self, number: int, thread: _Thread, chunk: _Chunk, begin: int, cut: int) -> Piece | None:
        """Take the words from `begin` to `cut`; None if the chunk is no longer what it was."""
        forced = begin < cut and self._became_forced(thread)
        words = np.frombuffer(chunk.words, np.uint64)
        stack, records = last_stack(words[:begin], thread.stack), words[begin:cut].copy()
        if not self._is_still(chunk):
            return None
        if begin:
            self.passed_over |= _turned(words[:begin])
        chunk.at += cut
        chunk.words = chunk.words[cut:]
        thread.stack = last_stack(records, stack)
        if records.size:
            thread.release = (chunk.at - 1, chunk) if int(records[-1]) & _KIND_AND_FORCED == _UNFORCED else None
        return Piece(number, chunk.sequence, chunk.base, stack, thread.info, records, forced)

    def _became_forced(self, thread: _Thread) -> bool:
        """Whether the thread, which has come back, says by now that its last release was forced."""
        if thread.release is None:
            return False
        at, chunk = thread.release
        word = int.from_bytes(self._source.read(at * _WORD, _WORD), "little")
        return word & _KIND_AND_FORCED == _UNFORCED | _FORCED and self._is_still(chunk)


def _cut(chunk: _Chunk, until: int, *, left: bool) -> int:
    """How many of the chunk's words are not later than `until`.

    Stacks have no time: they go with the record that follows, unless their thread has `left` the chunk.
    """
    words, limit = chunk.words, until - chunk.base

    def beyond(at: int) -> bool:
        word = words[at]
        while word >> layout.KIND_SHIFT & 7 >= layout.Kind.STACK:
            at += 1
            word = words[at] if at < len(words) else 0
        return word & _TIME > limit if word else not left

    return bisect_left(range(len(words)), True, key=beyond)


def _turned(records: Words) -> set[int]:
    """The GILs that are taken or released in some records."""
    kind = records >> np.uint64(layout.KIND_SHIFT) & np.uint64(7)
    turns = records[(kind == layout.Kind.ACQUIRE) | (kind == layout.Kind.RELEASE)]
    return set(np.unique(turns >> np.uint64(layout.GIL_SHIFT) & np.uint64(layout.MAX_GILS - 1)).tolist())


def last_stack(records: Words, before: int) -> int:
    """The number that the last STACK among `records` gives; `before` if there is none."""
    given = np.flatnonzero((records >> np.uint64(layout.KIND_SHIFT)) & np.uint64(31) == layout.Kind.STACK)
    return int(records[given[-1]] & np.uint64(0xFFFFFFFF)) if len(given) else before

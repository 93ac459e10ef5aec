"""Follow one of the tracer's files while it is being written (native/FORMAT.md).

The tracer publishes a chunk's head last and each record with one store, so a reader needs no lock. In a ring, chunks
come back under another head: one that is the same before and after says that what was read in between is of one piece.
"""

from __future__ import annotations

import mmap
import os
import re
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giltrace.recording import layout
from giltrace.recording.events import ThreadInfo
from giltrace.recording.gil import ALIGNMENT, GilFile, cmdline_of, note_of, text_of
from giltrace.recording.stacks import LiveStacks

_WORD = layout.RECORD.itemsize
_HEAD_WORDS = layout.CHUNK.itemsize // _WORD
_FORCED = layout.RecordFlag.FORCED << layout.FLAG_SHIFT
_UNFORCED = layout.Kind.RELEASE << layout.KIND_SHIFT
_KIND_AND_FORCED = 7 << layout.KIND_SHIFT | _FORCED
_TIME = (1 << layout.TIME_BITS) - 1
# Chunks that were read to their end may come back as others: so many are remembered, and looked at per reading.
_CLOSED_KEPT, _CLOSED_CHECKED = 1 << 16, 2048

Words = npt.NDArray[np.uint64]


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
    """A chunk that is being read: `head` are its first four words; `start`, `at` and `end` count words of the file."""

    __slots__ = ("at", "base", "end", "head", "sequence", "start")

    def __init__(self, start: int, head: tuple[int, ...]) -> None:
        self.start, self.head = start, head
        self.sequence, self.base = head[2] & 0xFFFFFFFF, head[3]
        self.at = start + _HEAD_WORDS
        self.end = start + (head[0] >> 32) // _WORD


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

    `missed` counts chunks that were used again before they were read, `lost` what the tracer had no room for.
    """

    def __init__(self, path: Path, number: int) -> None:
        self.path, self.number = path, number
        self.missed = 0
        self._lost = 0
        self.stacks: LiveStacks | None = None
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._map: mmap.mmap | None = None
        self._words = memoryview(b"").cast("Q")
        self._threads: dict[int, _Thread] = {}
        # Of what was allocated: the stretches of words in which no chunk was seen yet.
        self._gaps: list[tuple[int, int]] = []
        self._seen = layout.HEADER_SIZE // _WORD
        self._closed: deque[tuple[int, tuple[int, ...]]] = deque(maxlen=_CLOSED_KEPT)
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
        """Events that the tracer had no room for."""
        return int(self.header.header["lost"]) + self._lost + sum(thread.info.lost for thread in self._threads.values())

    def read(self, until: int, since: int = 0, *, last: bool = False) -> Iterator[Piece]:
        """Yield what is new up to the tick `until`; of each thread, what went before `since` is passed over.

        `last`: nobody writes any more.
        """
        self._read_header()
        self._remap()
        self._recheck()
        self._find_chunks()
        for number, thread in list(self._threads.items()):
            newest = thread.chunks[-1].sequence
            if last:
                thread.known = newest
            yield from self._read_thread(number, until, since)
            thread.known = newest

    def close(self) -> None:
        """Let go of the file."""
        self._unmap()
        os.close(self._fd)

    def _read_header(self) -> None:
        data = np.frombuffer(os.pread(self._fd, layout.HEADER_SIZE, 0), np.uint8)
        self.header = GilFile(self.path, data, data[: layout.HEADER.itemsize].view(layout.HEADER)[0])
        version = re.match(r"3\.(\d+)\.", self.python)
        if self.stacks is None and version:
            path = self.path.with_name("stacks" + self.path.name.removeprefix("gil"))
            self.stacks = LiveStacks(path, (3, int(version[1])))

    def _unmap(self) -> None:
        self._words.release()
        if self._map is not None:
            self._map.close()

    def _remap(self) -> None:
        words = os.fstat(self._fd).st_size // _WORD
        if words > len(self._words):
            self._unmap()
            self._map = mmap.mmap(self._fd, words * _WORD, access=mmap.ACCESS_READ)
            self._words = memoryview(self._map).cast("Q")
            self._gaps.append((self._seen, words))
            self._seen = words

    def _head(self, start: int) -> tuple[int, ...]:
        return tuple(self._words[start : start + 4])

    def _recheck(self) -> None:
        """Give up the chunks, of those read to their end, that are somebody else's by now."""
        for _ in range(min(len(self._closed), _CLOSED_CHECKED)):
            start, head = self._closed.popleft()
            if self._head(start) == head:
                self._closed.append((start, head))
            else:
                self._gaps.append((start, start + (head[0] >> 32) // _WORD))

    def _find_chunks(self) -> None:
        """Look for heads where none was seen so far.

        A record never looks like a head: its kind, which is never 0, lies where a head's size has zeros.
        """
        gaps, self._gaps = self._gaps, []
        for low, high in gaps:
            at = begin = low
            while at + _HEAD_WORDS <= high:
                head = self._head(at)
                size = (head[0] >> 32) // _WORD
                is_head = head[0] & 0xFFFFFFFF == layout.CHUNK_MAGIC and size and not size % (ALIGNMENT // _WORD)
                if not is_head or at + size > high:
                    at += ALIGNMENT // _WORD
                    continue
                self._add(at, head)
                if at > begin:
                    self._gaps.append((begin, at))
                at = begin = at + size
            if begin < high:
                self._gaps.append((begin, high))

    def _add(self, start: int, head: tuple[int, ...]) -> None:
        thread = self._threads.setdefault(head[1] & 0xFFFFFFFF, _Thread())
        thread.chunks.append(_Chunk(start, head))
        thread.chunks.sort(key=lambda chunk: chunk.sequence)

    def _read_thread(self, number: int, until: int, since: int) -> Iterator[Piece]:
        thread = self._threads[number]
        while thread.chunks:
            chunk = thread.chunks[0]
            follows = len(thread.chunks) > 1
            if chunk.sequence > max(thread.expected, thread.known, 0):
                # The one before it may have been published behind our back while we looked elsewhere: look again first.
                break
            self._learn(thread, chunk)
            if follows and thread.chunks[1].base <= since:
                piece = self._pass_over(thread, chunk)
            else:
                cut = self._cut(chunk, until, left=follows)
                piece = self._take(number, thread, chunk, min(self._since(chunk, since), cut), cut)
            if piece is None:  # used again under our eyes
                self.missed += 1
                self._gaps.append((chunk.start, chunk.end))
                thread.chunks.pop(0)
                continue
            if piece.records.size:
                yield piece
                if int(piece.records[-1]) >> layout.KIND_SHIFT & 7 == layout.Kind.THREAD_END:
                    self._close_chunk(thread)
                    break
            if not follows or (chunk.at < chunk.end and self._words[chunk.at] != 0):
                break
            self._close_chunk(thread)
        if not thread.chunks:
            self._lost += thread.info.lost
            del self._threads[number]

    def _close_chunk(self, thread: _Thread) -> None:
        chunk = thread.chunks.pop(0)
        thread.expected = chunk.sequence + 1
        thread.lost = thread.info.lost
        self._closed.append((chunk.start, chunk.head))

    def _learn(self, thread: _Thread, chunk: _Chunk) -> None:
        """Take the name, and what was lost, from the chunk's head; notice chunks that are gone unread."""
        if 0 <= thread.expected < chunk.sequence:
            self.missed += chunk.sequence - thread.expected
            thread.stack = 0
        thread.expected = chunk.sequence
        raw = bytes(self._words[chunk.start : chunk.start + _HEAD_WORDS])
        head = np.frombuffer(raw, layout.CHUNK)[0]
        name = text_of(bytes(head["name"])) or thread.info.name
        thread.info = ThreadInfo(int(head["tid"]), name, thread.lost + int(head["lost"]))

    def _cut(self, chunk: _Chunk, until: int, *, left: bool) -> int:
        """The first word of a chunk, from where it was read to, that was not written yet or is later than `until`.

        Stacks have no time: they go with the record that follows, unless their thread has `left` the chunk.
        """
        words, end, limit = self._words, chunk.end, until - chunk.base

        def beyond(at: int) -> bool:
            word = words[at]
            if word == 0:
                return True
            while word >> layout.KIND_SHIFT & 7 >= layout.Kind.STACK:
                at += 1
                word = words[at] if at < end else 0
            return word & _TIME > limit if word else not left

        low, step = chunk.at, 1
        while low + step <= end and not beyond(low + step - 1):
            low += step
            step *= 2
        return bisect_left(range(min(low + step, end)), True, lo=low, key=beyond)

    def _since(self, chunk: _Chunk, since: int) -> int:
        """Where to begin: at the acquire or request that is under way at `since`, else behind the last release."""
        if since <= chunk.base:
            return chunk.at
        for at in range(self._cut(chunk, since, left=False) - 1, chunk.at - 1, -1):
            kind = self._words[at] >> layout.KIND_SHIFT & 7
            if kind in (layout.Kind.REQUEST, layout.Kind.ACQUIRE, layout.Kind.RELEASE):
                return at + (kind == layout.Kind.RELEASE)
        return chunk.at

    def _pass_over(self, thread: _Thread, chunk: _Chunk) -> Piece | None:
        return self._take(-1, thread, chunk, chunk.end, chunk.end)

    def _take(self, number: int, thread: _Thread, chunk: _Chunk, begin: int, cut: int) -> Piece | None:
        """Copy the words from `begin` to `cut`; None if the chunk is no longer what it was."""
        data = self._map
        assert data is not None
        forced = begin < cut and self._became_forced(thread)
        skipped = np.frombuffer(data, np.uint64, begin - chunk.at, chunk.at * _WORD)
        stack = last_stack(skipped, thread.stack)
        del skipped
        records = np.frombuffer(data, np.uint64, cut - begin, begin * _WORD).copy()
        if self._head(chunk.start) != chunk.head:
            return None
        chunk.at = cut
        thread.stack = last_stack(records, stack)
        if records.size:
            thread.release = (cut - 1, chunk) if int(records[-1]) & _KIND_AND_FORCED == _UNFORCED else None
        return Piece(number, chunk.sequence, chunk.base, stack, thread.info, records, forced)

    def _became_forced(self, thread: _Thread) -> bool:
        """Whether the thread, which has come back, says by now that its last release was forced."""
        if thread.release is None:
            return False
        at, chunk = thread.release
        word = self._words[at]
        return word & _KIND_AND_FORCED == _UNFORCED | _FORCED and self._head(chunk.start) == chunk.head


def last_stack(records: Words, before: int) -> int:
    """The number that the last STACK among `records` gives; `before` if there is none."""
    given = np.flatnonzero((records >> np.uint64(layout.KIND_SHIFT)) & np.uint64(7) == layout.Kind.STACK)
    return int(records[given[-1]] & np.uint64(0xFFFFFFFF)) if len(given) else before

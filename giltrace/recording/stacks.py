"""Read stacks-<pid>-<n>.bin: the distinct Python stacks of one program image (native/FORMAT.md)."""

from __future__ import annotations

import contextlib
import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording.door import Source
from giltrace.recording.events import FRAME, StackTable
from giltrace.recording.libraries import Libraries
from giltrace.recording.lines import LineTable

_PADDING, _CODE, _STACK, _TYPE = 3, 4, 5, 6
#: The tracer knows fewer.
_MOST_TYPES = 1024
#: Of recordings made before records said how long they are.
_UNSIZED = {1: _CODE, 2: _STACK}
_KIND_BITS = 8
#: A frame: its function, file and line; `_Raw` has numbers of texts.
Frame = tuple[str, str, int]
_Raw = tuple[int, int, int]
#: With the columns of its expression, as in `events.FRAME`.
_Whole = tuple[int, int, int, int, int]
_ENCODINGS = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}


class _Torn(Exception):
    """The data end within a record."""


@dataclass
class _Reader:
    """Reads a record's words and texts; texts end at a multiple of `alignment` bytes."""

    data: bytes
    alignment: int = 4
    at: int = 0

    def words(self, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}I", self._take(4 * count))

    def blob(self) -> tuple[int, bytes]:
        width, length = self.words(2)
        blob = self._take(width * length)
        self.at += -len(blob) % self.alignment
        return width, blob

    def text(self) -> str:
        width, blob = self.blob()
        return blob.decode(_ENCODINGS.get(width, "latin-1"), "replace")

    def _take(self, size: int) -> bytes:
        end = self.at + size
        if end > len(self.data):
            raise _Torn
        data = self.data[self.at : end]
        self.at = end
        return data


class _Record(NamedTuple):
    """A whole record: what it tells, and where in the file it is."""

    kind: int
    reader: _Reader
    begin: int
    end: int


def _records(source: Source, at: int) -> Iterator[_Record]:
    """Each record from the place `at` on that is there whole by now, but for what only fills a gap."""
    while len(head := source.read(at, 4)) == 4:
        (word,) = struct.unpack("<I", head)
        kind, size = word & (1 << _KIND_BITS) - 1, (word >> _KIND_BITS) * 4
        if size == 0:
            if kind in _UNSIZED:
                yield from _unsized(bytes(source.data(at)), at)
            return
        if kind != _PADDING:
            body = source.read(at + 4, size - 4)
            if len(body) < size - 4:
                return
            yield _Record(kind, _Reader(body), at, at + size)
        at += size


def _unsized(data: bytes, place: int) -> Iterator[_Record]:
    """The records of `data`, which lie at `place`, each as long as what it holds."""
    reader = _Reader(data, alignment=1)
    with contextlib.suppress(_Torn):
        while reader.at < len(data):
            begin = reader.at
            (kind,) = reader.words(1)
            if kind not in _UNSIZED:
                return
            if _UNSIZED[kind] == _CODE:
                reader.words(2)
                for _ in range(3):
                    reader.blob()
            else:
                reader.words(2 * reader.words(3)[1])
            body = _Reader(data[begin + 4 : reader.at], alignment=1)
            yield _Record(_UNSIZED[kind], body, place + begin, place + reader.at)


def copy_records(path: Path, at: int, out: BinaryIO) -> int:
    """Append the records of a growing file from the place `at` on to `out`; returns from where to go on."""
    with Source(path) as source:
        for record in _records(source, at):
            out.write(source.read(record.begin, record.end - record.begin))
            at = record.end
    return at


class _Codes:
    """Reads the records of one file, and keeps what it says of code objects."""

    def __init__(self, version: tuple[int, int]) -> None:
        self.version = version
        self.codes: dict[int, tuple[int, int, LineTable]] = {}
        self.strings: dict[str, int] = {}
        self.texts: list[str] = []
        self.types: dict[int, str] = {}
        # 3.12's entry frames, which no program wrote.
        self.shim = self._string("<shim>")

    def read(self, record: _Record) -> tuple[int, bool, list[_Whole]] | None:
        """Take in one record. Of a stack return its number, whether it is cut off, and its frames as `_frames` does.

        None for what is no stack, and for a stack that cannot be read or names a code that is not known.
        """
        with contextlib.suppress(_Torn, KeyError):
            if record.kind == _CODE:
                self._add(record.reader)
            elif record.kind == _TYPE:
                (number,) = record.reader.words(1)
                self.types[number] = record.reader.text()
            elif record.kind == _STACK:
                number, depth, truncated = record.reader.words(3)
                flat = record.reader.words(2 * depth)
                return number, bool(truncated), list(self._frames(zip(flat[::2], flat[1::2], strict=True)))
        return None

    def _add(self, reader: _Reader) -> None:
        ident, first_line = reader.words(2)
        file, name, table = reader.text(), reader.text(), reader.blob()[1]
        self.codes[ident] = (self._string(name), self._string(file), LineTable(self.version, first_line, table))

    def _frames(self, raw: Iterable[tuple[int, int]]) -> Iterator[_Whole]:
        """The fields of `FRAME` of each (code, offset) that a program wrote; texts are numbers of strings."""
        for code, offset in raw:
            name, file, lines = self.codes[code]
            if file != self.shim:
                yield name, file, lines.line(offset), *lines.columns(offset)

    def named_types(self) -> tuple[str, ...]:
        """The names of types of objects by their numbers, from 1 on."""
        most = min(max(self.types, default=0), _MOST_TYPES)
        return tuple(self.types.get(number, "") for number in range(1, most + 1))

    def _string(self, text: str) -> int:
        number = self.strings.setdefault(text, len(self.strings))
        if number == len(self.texts):
            self.texts.append(text)
        return number


class LiveStacks:
    """Follows the stacks of a recording that is being written, in little memory: only two frames of each are kept.

    `tops` are the distinct pairs of a stack's innermost frame and its own line, which is the innermost frame that is no
    library's (the innermost of all where there is none); a frame is its (function, file, line).
    """

    def __init__(self, path: Path, version: tuple[int, int]) -> None:
        self.tops: list[tuple[Frame, Frame]] = []
        self._path = path
        self._codes = _Codes(version)
        self._libraries = Libraries()
        self._is_library: dict[int, bool] = {}
        self._end = 0
        self._top_number: dict[tuple[_Raw, _Raw], int] = {}
        # By the tracer's number: a place in `tops`, and where in the file the record begins.
        self._top = array("i", [-1])
        self._place = array("q", [-1])

    def update(self) -> None:
        """Read what was written since the last call."""
        with contextlib.suppress(FileNotFoundError), Source(self._path) as source:
            for record in _records(source, self._end):
                stack = self._codes.read(record)
                if stack is not None and stack[0] <= record.end:
                    self._keep(stack[0], [frame[:3] for frame in stack[2]], record.begin)
                self._end = record.end
        fresh = list(self._top_number)[len(self.tops) :]
        self.tops += [(self._named(leaf), self._named(own)) for leaf, own in fresh]

    def _keep(self, number: int, frames: list[_Raw], place: int) -> None:
        grow = number + 1 - len(self._top)
        if grow > 0:
            self._top.extend([-1] * grow)
            self._place.extend([-1] * grow)
        if frames:
            top = frames[0], self._own_line(frames)
            self._top[number] = self._top_number.setdefault(top, len(self._top_number))
        self._place[number] = place

    def _own_line(self, frames: list[_Raw]) -> _Raw:
        texts = self._codes.texts
        for function, file, _ in frames:
            if self._libraries.learn(texts[function], texts[file]):
                self._is_library.clear()
        for frame in frames:
            file = frame[1]
            if file not in self._is_library:
                self._is_library[file] = self._libraries.has(texts[file])
            if not self._is_library[file]:
                return frame
        return frames[0]

    def _named(self, frame: _Raw) -> Frame:
        function, file, line = frame
        return self._codes.texts[function], self._codes.texts[file], line

    def top(self, number: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """For each of the tracer's numbers the place in `tops`; -1 if none is known."""
        known = (number > 0) & (number < len(self._top))
        table = np.array(self._top, np.int64)
        return np.where(known, table[np.where(known, number, 0)], -1)

    def stack(self, number: int) -> tuple[tuple[str, str, int], ...]:
        """A whole stack by the tracer's number, innermost frame first; empty if it is not known."""
        if not 0 < number < len(self._place) or self._place[number] < 0:
            return ()
        with Source(self._path) as source:
            record = next(_records(source, self._place[number]), None)
        stack = self._codes.read(record) if record is not None else None
        return tuple(self._named(frame[:3]) for frame in stack[2]) if stack is not None else ()


def placed(stacks: npt.NDArray[np.int32], place: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """The places of the tracer's numbers of stacks; one beyond those that were written has the last, which is none."""
    return place[np.minimum(stacks, len(place) - 1)]


def read_stacks(path: Path, version: tuple[int, int]) -> tuple[StackTable, npt.NDArray[np.int32]] | None:
    """Read the stacks of an interpreter of `version` (major, minor); None if none were recorded.

    Also returns the place in the table of each of the tracer's numbers, -1 for 0 and for what was not written.
    """
    codes = _Codes(version)
    flat: list[_Whole] = []
    offsets = [0]
    cut: list[bool] = []
    place = array("i", [-1])
    try:
        with Source(path) as source:
            for record in _records(source, 0):
                stack = codes.read(record)
                # Numbers count from 1, and each record takes more than a byte: a larger one is damaged.
                if stack is None or not 0 < stack[0] <= record.end:
                    continue
                number, truncated, frames = stack
                place.extend([-1] * (number + 1 - len(place)))
                place[number] = len(cut)
                flat += frames
                offsets.append(len(flat))
                cut.append(truncated)
    except FileNotFoundError:
        return None
    table = StackTable(
        frames=np.array(flat, FRAME),
        offsets=np.array(offsets, np.int64),
        truncated=np.array(cut, np.bool_),
        strings=tuple(codes.strings),
        types=codes.named_types(),
    )
    return table, np.array(place, np.int32)

"""Read stacks-<pid>-<n>.bin: the distinct Python stacks of one program image (native/FORMAT.md)."""

from __future__ import annotations

import contextlib
import struct
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giltrace.recording.events import FRAME, StackTable
from giltrace.recording.lines import LineTable

_CODE, _STACK = 1, 2
_ENCODINGS = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}


class _Torn(Exception):
    """The file ends within a record."""


@dataclass
class _Reader:
    data: bytes
    at: int = 0

    def words(self, count: int) -> tuple[int, ...]:
        end = self.at + 4 * count
        if end > len(self.data):
            raise _Torn
        values = struct.unpack_from(f"<{count}I", self.data, self.at)
        self.at = end
        return values

    def blob(self) -> tuple[int, bytes]:
        width, length = self.words(2)
        end = self.at + width * length
        if end > len(self.data):
            raise _Torn
        blob = self.data[self.at : end]
        self.at = end
        return width, blob

    def text(self) -> str:
        width, blob = self.blob()
        return blob.decode(_ENCODINGS.get(width, "latin-1"), "replace")


class _Codes:
    """Reads the records of one file, and keeps what it says of code objects."""

    def __init__(self, version: tuple[int, int]) -> None:
        self.version = version
        self.codes: dict[int, tuple[int, int, LineTable]] = {}
        self.strings: dict[str, int] = {}
        # 3.12's entry frames, which no program wrote.
        self.shim = self._string("<shim>")

    def read(self, reader: _Reader) -> tuple[int, bool, list[tuple[int, int]]] | None:
        """Read one record. Of a stack return its number, whether it is cut off, and (code, offset) of its frames."""
        (kind,) = reader.words(1)
        if kind == _CODE:
            ident, first_line = reader.words(2)
            file, name = self._string(reader.text()), self._string(reader.text())
            self.codes[ident] = (name, file, LineTable(self.version, first_line, reader.blob()[1]))
            return None
        if kind != _STACK:
            raise _Torn
        number, depth, truncated = reader.words(3)
        flat = reader.words(2 * depth)
        return number, bool(truncated), list(zip(flat[::2], flat[1::2], strict=True))

    def frames(self, raw: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int, int]]:
        """The (function, file, line) of each (code, offset) that a program wrote, the first two as numbers of strings.

        Raises `KeyError` for a code that is not known.
        """
        for code, offset in raw:
            name, file, lines = self.codes[code]
            if file != self.shim:
                yield name, file, lines.line(offset)

    def _string(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))


class _Table(_Codes):
    """Collects the records of one file."""

    def __init__(self, version: tuple[int, int]) -> None:
        super().__init__(version)
        self.flat: list[tuple[int, int, int]] = []
        self.offsets = [0]
        self.truncated: list[bool] = []
        self.number: dict[int, int] = {}

    def add(self, reader: _Reader) -> None:
        stack = self.read(reader)
        if stack is not None:
            number, truncated, raw = stack
            self.flat += self.frames(raw)
            self.number[number] = len(self.truncated)
            self.offsets.append(len(self.flat))
            self.truncated.append(truncated)


class LiveStacks:
    """Follows the stacks of a recording that is being written, in little memory: only innermost frames are kept.

    `tops` are the distinct innermost frames as (function, file, line).
    """

    def __init__(self, path: Path, version: tuple[int, int]) -> None:
        self.tops: list[tuple[str, str, int]] = []
        self._path = path
        self._codes = _Codes(version)
        self._texts: list[str] = []
        self._end = 0
        self._top_number: dict[tuple[int, int, int], int] = {}
        # By the tracer's number: the innermost frame as a place in `tops`, and where in the file the record begins.
        self._top = array("i", [-1])
        self._place = array("q", [-1])

    def update(self) -> None:
        """Read what was written since the last call."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._end)
                reader = _Reader(file.read())
        except FileNotFoundError:
            return
        begin = at = 0
        with contextlib.suppress(_Torn, KeyError):  # the rest of the record is on its way
            while reader.at < len(reader.data):
                begin = reader.at
                stack = self._codes.read(reader)
                if stack is not None:
                    self._keep(stack[0], stack[2], self._end + begin)
                at = reader.at
        self._texts += list(self._codes.strings)[len(self._texts) :]
        self._name_tops()
        self._end += at

    def _keep(self, number: int, raw: list[tuple[int, int]], place: int) -> None:
        grow = number + 1 - len(self._top)
        if grow > 0:
            self._top.extend([-1] * grow)
            self._place.extend([-1] * grow)
        top = next(self._codes.frames(raw), None)
        if top is not None:
            self._top[number] = self._top_number.setdefault(top, len(self._top_number))
        self._place[number] = place

    def _name_tops(self) -> None:
        fresh = list(self._top_number)[len(self.tops) :]
        self.tops += [(self._texts[function], self._texts[file], line) for function, file, line in fresh]

    def top(self, number: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """For each of the tracer's numbers the innermost frame as a place in `tops`; -1 if none is known."""
        known = (number > 0) & (number < len(self._top))
        table = np.array(self._top, np.int64)
        return np.where(known, table[np.where(known, number, 0)], -1)

    def stack(self, number: int) -> tuple[tuple[str, str, int], ...]:
        """A whole stack by the tracer's number, innermost frame first; empty if it is not known."""
        if not 0 < number < len(self._place) or self._place[number] < 0:
            return ()
        with self._path.open("rb") as file:
            file.seek(self._place[number])
            _, _, depth = struct.unpack("<3I", file.read(12))
            file.seek(self._place[number])
            read = self._codes.read(_Reader(file.read(16 + 8 * depth)))
        frames = self._codes.frames(read[2]) if read is not None else ()
        return tuple((self._texts[function], self._texts[file_], line) for function, file_, line in frames)


def read_stacks(path: Path, version: tuple[int, int]) -> tuple[StackTable, npt.NDArray[np.int32]] | None:
    """Read the stacks of an interpreter of `version` (major, minor); None if none were recorded.

    Also returns the place in the table of each of the tracer's numbers, -1 for 0 and for what was not written.
    """
    try:
        reader = _Reader(path.read_bytes())
    except FileNotFoundError:
        return None
    table = _Table(version)
    with contextlib.suppress(_Torn, KeyError):  # a torn tail costs only the stacks in it
        while reader.at < len(reader.data):
            table.add(reader)
    place = np.full(max(table.number, default=0) + 1, -1, np.int32)
    if table.number:
        place[list(table.number)] = list(table.number.values())
    stacks = StackTable(
        frames=np.array(table.flat, FRAME),
        offsets=np.array(table.offsets, np.int64),
        truncated=np.array(table.truncated, np.bool_),
        strings=tuple(table.strings),
    )
    return stacks, place

"""Read stacks-<pid>-<n>.bin: the distinct Python stacks of one program image (native/FORMAT.md)."""

from __future__ import annotations

import contextlib
import struct
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


class _Table:
    """Collects the records of one file."""

    def __init__(self, version: tuple[int, int]) -> None:
        self.version = version
        self.codes: dict[int, tuple[int, int, LineTable]] = {}
        self.strings: dict[str, int] = {}
        self.frames: list[tuple[int, int, int]] = []
        self.offsets = [0]
        self.truncated: list[bool] = []
        self.number: dict[int, int] = {}
        # 3.12's entry frames, which no program wrote.
        self.shim = self._string("<shim>")

    def add(self, reader: _Reader) -> None:
        (kind,) = reader.words(1)
        if kind == _CODE:
            ident, first_line = reader.words(2)
            file, name = self._string(reader.text()), self._string(reader.text())
            self.codes[ident] = (name, file, LineTable(self.version, first_line, reader.blob()[1]))
        elif kind == _STACK:
            ident, depth, truncated = reader.words(3)
            flat = reader.words(2 * depth)
            for code, offset in zip(flat[::2], flat[1::2], strict=True):
                name, file, lines = self.codes[code]
                if file != self.shim:
                    self.frames.append((name, file, lines.line(offset)))
            self.number[ident] = len(self.truncated)
            self.offsets.append(len(self.frames))
            self.truncated.append(bool(truncated))
        else:
            raise _Torn

    def _string(self, text: str) -> int:
        return self.strings.setdefault(text, len(self.strings))


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
        frames=np.array(table.frames, FRAME),
        offsets=np.array(table.offsets, np.int64),
        truncated=np.array(table.truncated, np.bool_),
        strings=tuple(table.strings),
    )
    return stacks, place

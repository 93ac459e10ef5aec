"""From an instruction's offset to its line and columns, for the line tables of CPython 3.8 to 3.15.

The formats are those of CPython's Objects/lnotab_notes.txt (3.8-3.10) and Objects/locations.md (3.11 and later).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

#: Line of an instruction that belongs to none.
NO_LINE = 0
#: Columns of an expression that are not known, or not all on its line.
NO_COLUMNS = (0, 0)
_MOST_LINES = (1 << 31) - 1
#: What `events.FRAME` has room for.
MOST_COLUMNS = (1 << 16) - 1
#: A difference of lines has no more bits than an int.
_MOST_BITS = 32


# Where a range of instructions begins, its line, and the columns of its expression.
_Entry = tuple[int, int, tuple[int, int]]


class LineTable:
    """Lines of one code object: `line(offset)` gives that of the instruction at a byte offset, or `NO_LINE`.

    `columns(offset)` gives where in that line its expression begins and ends, in bytes of UTF-8 from 0 on; or
    `NO_COLUMNS`, as always before 3.11.
    """

    def __init__(self, version: tuple[int, int], first_line: int, table: bytes) -> None:
        if version >= (3, 11):
            entries = _locations(first_line, table)
        elif version == (3, 10):
            entries = _ranges(first_line, table)
        else:
            entries = _lnotab(first_line, table)
        self._starts: list[int] = []
        self._lines: list[int] = []
        self._columns: list[tuple[int, int]] = []
        for start, line, columns in entries:
            self._starts.append(start)
            self._lines.append(line)
            self._columns.append(columns)

    def line(self, offset: int) -> int:
        """The line of the instruction that begins at `offset` bytes into the code."""
        at = bisect_right(self._starts, offset) - 1
        line = self._lines[at] if at >= 0 else NO_LINE
        return line if 0 < line <= _MOST_LINES else NO_LINE

    def columns(self, offset: int) -> tuple[int, int]:
        """The columns of the expression of the instruction that begins at `offset` bytes into the code."""
        at = bisect_right(self._starts, offset) - 1
        begin, end = self._columns[at] if at >= 0 else NO_COLUMNS
        return (begin, end) if 0 <= begin < end <= MOST_COLUMNS else NO_COLUMNS


def _signed(byte: int) -> int:
    return byte - 256 if byte >= 128 else byte


def _lnotab(line: int, table: bytes) -> Iterator[_Entry]:
    """3.8, 3.9: pairs of (bytes of code since the last, lines since the last), the latter signed."""
    start = 0
    yield start, line, NO_COLUMNS
    for step, lines in zip(table[::2], table[1::2], strict=False):
        start += step
        line += _signed(lines)
        yield start, line, NO_COLUMNS


def _ranges(line: int, table: bytes) -> Iterator[_Entry]:
    """3.10: pairs of (length of a range, its line relative to the last); -128 is a range without a line."""
    start = 0
    for length, lines in zip(table[::2], table[1::2], strict=False):
        delta = _signed(lines)
        if delta != -128:
            line += delta
        yield start, NO_LINE if delta == -128 else line, NO_COLUMNS
        start += length


def _locations(line: int, table: bytes) -> Iterator[_Entry]:
    """3.11 and later: entries of one head byte (1, 4 bits of kind, 3 bits of length) and what the kind asks for."""
    start = at = 0
    while at < len(table):
        head = table[at]
        kind, length = (head >> 3) & 15, (head & 7) + 1
        at += 1
        columns = NO_COLUMNS
        if kind in (13, 14):
            delta, after = _varint(table, at)
            line += -(delta >> 1) if delta & 1 else delta >> 1
            if kind == 14:
                columns = _long(table, after)
        elif kind in (10, 11, 12):
            line += kind - 10
            columns = (table[at], table[at + 1]) if at + 1 < len(table) else NO_COLUMNS
        elif kind < 10 and at < len(table):
            begin = kind << 3 | table[at] >> 4
            columns = begin, begin + (table[at] & 15)
        yield start, NO_LINE if kind == 15 else line, columns
        start += 2 * length
        while at < len(table) and not table[at] & 0x80:
            at += 1


def _long(table: bytes, at: int) -> tuple[int, int]:
    """Columns of the long form: lines from the first to the last, then both columns, counted from 1."""
    lines, at = _varint(table, at)
    begin, at = _varint(table, at)
    end, _ = _varint(table, at)
    return NO_COLUMNS if lines else (begin - 1, end - 1)


def _varint(table: bytes, at: int) -> tuple[int, int]:
    """Six bits a byte, lowest first; bit 6 says that another byte follows. Of a damaged one the low bits."""
    value = shift = 0
    while at < len(table):
        value |= (table[at] & 63) << shift if shift < _MOST_BITS else 0
        shift += 6
        at += 1
        if not table[at - 1] & 64:
            break
    return value, at

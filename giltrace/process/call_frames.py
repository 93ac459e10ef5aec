"""What an ELF file's call frame information says of an instruction: whether the frame pointer leads to its caller.

The kernel follows frame pointers without knowing whether there are any: code that was compiled without them uses the
register for something else, and what is found there may look like an address of code. Where the unwind tables say that
the frame is told by the frame pointer, what it leads to is the return address; nothing else is believed.

Known for x86-64 only: elsewhere the tables tell the frame by the stack pointer, also where there is a frame pointer.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

import numpy as np

from giltrace.process.elf_file import ElfFile, NotElf

_X86_64 = 62
_FRAME_POINTER = 6
#: Of a frame that the usual two instructions have set up: its end is this far above where the register points to.
_BEYOND = 16
#: How pointers are written: relative to where they stand, 4 bytes, signed; in the index, relative to its begin.
_PC_RELATIVE, _TABLE_RELATIVE, _FOUR_BYTES, _OMITTED = 0x1B, 0x3B, 0x03, 0xFF
_INDEX_HEAD = 12
#: No description has more bytes, no augmentation more letters.
_LONGEST = 1 << 16
_MOST_FUNCTIONS = 1 << 22


class _Row(NamedTuple):
    """From an address on: whether the frame pointer leads to the caller's, and to the return address beside it."""

    start: int
    leads: bool


class CallFrames:
    """The call frame information of `file`; none of it if that is not written in the usual way."""

    def __init__(self, file: ElfFile) -> None:
        self._file = file
        self._starts, self._places = np.empty(0, np.int64), np.empty(0, np.int64)
        self._known: dict[int, list[_Row]] = {}
        try:
            self._read_index()
        except NotElf:
            return

    def _read_index(self) -> None:
        where = self._file.unwind_table
        if where is None or self._file.machine != _X86_64:
            return
        head = self._file.at_address(where.address, _INDEX_HEAD)
        if head[0] != 1 or head[2] != _FOUR_BYTES or head[3] != _TABLE_RELATIVE or head[1] != _PC_RELATIVE:
            return
        count = int.from_bytes(head[8:12], "little")
        if count > _MOST_FUNCTIONS:
            return
        data = self._file.at_address(where.address + _INDEX_HEAD, 8 * count)
        pairs = np.frombuffer(data, "<i4", len(data) // 8 * 2).astype(np.int64).reshape(-1, 2)
        self._starts, self._places = where.address + pairs[:, 0], where.address + pairs[:, 1]

    def has_frame_pointer(self, address: int) -> bool:
        """Whether the frame pointer leads to the return address where the instruction at `address` is about to run."""
        at = int(np.searchsorted(self._starts, address, "right")) - 1
        if at < 0:
            return False
        if at not in self._known:
            try:
                self._known[at] = _rows(self._file, int(self._places[at]))
            except (NotElf, IndexError):
                self._known[at] = []
        rows = self._known[at]
        row = rows[bisect_right(rows, address, key=lambda row: row.start) - 1] if rows else None
        return row is not None and row.start <= address and row.leads


class _Reader:
    """Reads numbers one after the other. Raises IndexError behind the end."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int, *, signed: bool = False) -> int:
        if self.at + count > len(self.data):
            raise IndexError
        self.at += count
        return int.from_bytes(self.data[self.at - count : self.at], "little", signed=signed)

    def leb(self, *, signed: bool = False) -> int:
        value = shift = 0
        while True:
            byte = self.take(1)
            value |= (byte & 127) << shift
            shift += 7
            if not byte & 128 or shift > 70:
                break
        return value - (1 << shift) if signed and byte & 64 else value

    def block(self) -> None:
        self.at += self.leb()


def _entry(file: ElfFile, address: int) -> bytes:
    """The bytes of a description, its length left out."""
    length = int.from_bytes(file.at_address(address, 4), "little")
    if not 4 <= length <= _LONGEST:
        raise NotElf
    data = file.at_address(address + 4, length)
    if len(data) < length:
        raise NotElf
    return data


def _rows(file: ElfFile, address: int) -> list[_Row]:
    """What the description at `address` says of its function, from which instruction on; the last row is its end."""
    reader = _Reader(_entry(file, address))
    common = address + 4 - reader.take(4)
    begin = address + 8 + reader.take(4, signed=True)
    length = reader.take(4)
    machine = _Machine(file, common)
    if machine.is_augmented:
        reader.block()
    machine.start = begin
    machine.run(reader)
    return [*machine.rows, _Row(begin + length, False)]


class _Machine:
    """Runs the instructions of one function's description, those that `common` (an address) has for all first."""

    def __init__(self, file: ElfFile, common: int) -> None:
        reader = _Reader(_entry(file, common))
        if reader.take(4) != 0 or reader.take(1) not in (1, 3):
            raise NotElf
        end = reader.data.index(0, reader.at)
        letters = reader.data[reader.at : end]
        reader.at = end + 1
        self._code, self._data, _ = reader.leb(), reader.leb(signed=True), reader.leb()
        self.is_augmented = letters.startswith(b"z")
        encoding = _OMITTED
        if self.is_augmented:
            length = reader.leb()
            behind = reader.at + length
            for letter in letters[1:].decode("ascii", "replace"):
                if letter == "R":
                    encoding = reader.take(1)
                elif letter == "L":
                    reader.take(1)
                elif letter == "P":
                    if reader.take(1) & 0x0F not in (0x03, 0x0B):
                        raise NotElf
                    reader.take(4)
                else:  # of a signal's handler, or unknown
                    raise NotElf
            reader.at = behind
        if encoding != _PC_RELATIVE:
            raise NotElf
        self.start = 0
        self.rows: list[_Row] = []
        self._register, self._offset = -1, 0
        #: Where below the frame's end the caller's frame pointer lies, 0 if it is not known.
        self._kept = 0
        self._saved: list[tuple[int, int, int]] = []
        self.run(reader)
        self.rows.clear()

    def run(self, reader: _Reader) -> None:
        """Follow the instructions to their end. Raises NotElf for those that compilers do not write for C."""
        while reader.at < len(reader.data):
            self._step(reader, reader.take(1))
        self._close(self.start + 1)

    def _close(self, until: int) -> None:
        if until > self.start:
            usual = self._register == _FRAME_POINTER and self._offset == _BEYOND and self._kept == -_BEYOND
            self.rows.append(_Row(self.start, usual))

    def _advance(self, steps: int) -> None:
        until = self.start + steps * self._code
        self._close(until)
        self.start = until

    def _step(self, reader: _Reader, byte: int) -> None:
        high, low = byte & 0xC0, byte & 0x3F
        if high == 0x40:
            self._advance(low)
        elif high == 0x80:  # a register is saved
            place = reader.leb() * self._data
            self._kept = place if low == _FRAME_POINTER else self._kept
        elif high == 0xC0 or low == 0x00:  # restored, or nothing
            pass
        elif low in (0x02, 0x03, 0x04):
            self._advance(reader.take({2: 1, 3: 2, 4: 4}[low]))
        elif low in (0x05, 0x09, 0x11, 0x14, 0x15):  # two numbers about a register
            reader.leb()
            reader.leb()
        elif low in (0x06, 0x07, 0x08, 0x2E):  # one number
            reader.leb()
        elif low == 0x0A:
            self._saved.append((self._register, self._offset, self._kept))
        elif low == 0x0B and self._saved:
            self._register, self._offset, self._kept = self._saved.pop()
        elif low == 0x0C:
            self._register, self._offset = reader.leb(), reader.leb()
        elif low == 0x0D:
            self._register = reader.leb()
        elif low == 0x0E:
            self._offset = reader.leb()
        elif low == 0x0F:  # the frame's end is told by an expression
            self._register = -1
            reader.block()
        elif low in (0x10, 0x16):
            reader.leb()
            reader.block()
        else:
            raise NotElf

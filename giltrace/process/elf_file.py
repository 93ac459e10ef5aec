"""The functions of an ELF file, as its symbols tell them: which of them covers an address, if any does.

A symbol has a beginning and a size. An address that no symbol's extent covers has no name, however near the next
symbol is: of stripped files most functions are gone, and the nearest one left is another one. What is there need not
be what it looks like: all of it is checked, and no memory is taken by a number that stands in it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

#: Reads up to so many bytes at a place of the file; fewer where it ends.
Read = Callable[[int, int], bytes]

_HEAD = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = np.dtype(
    [
        ("name", "<u4"),
        ("kind", "<u4"),
        ("flags", "<u8"),
        ("address", "<u8"),
        ("offset", "<u8"),
        ("size", "<u8"),
        ("link", "<u4"),
        ("info", "<u4"),
        ("align", "<u8"),
        ("entry", "<u8"),
    ]
)
_SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_PT_LOAD, _PT_NOTE, _PT_EH_FRAME = 1, 4, 0x6474E550
_EXECUTABLE = 1
_SHT_SYMTAB, _SHT_DYNSYM = 2, 11
_STT_FUNC = 2
_NT_BUILD_ID = 3
#: No table is longer, packed or not, and none has more sections.
_LONGEST = 1 << 28
_LONGEST_PACKED = 1 << 26
_MOST_SECTIONS = 1 << 12
_PIECE = 1 << 20
#: Lengths of functions; larger ones are nonsense.
_LARGEST = 1 << 32


class NotElf(Exception):
    """It is no ELF64 file of this byte order, or its tables make no sense."""


class Load(NamedTuple):
    """A segment of code: where it lies in the file, how long it is there, and at which address it is linked."""

    offset: int
    size: int
    address: int


class ElfFile:
    """The file that `read` reads. Raises NotElf."""

    def __init__(self, read: Read) -> None:
        self._read = read
        head = self.read(0, _HEAD.size)
        ident, _, self.machine, *_, segments, sections, _, _, size, count, section_size, section_count, names = (
            _HEAD.unpack(head)
        )
        if ident[:6] != b"\x7fELF\x02\x01" or size != _SEGMENT.size:
            raise NotElf
        table = _SEGMENT.iter_unpack(self.read(segments, size * count))
        self._segments = [
            (kind, flags, Load(at, length, address)) for kind, flags, at, address, _, length, _, _ in table
        ]
        #: Its segments of code.
        self.loads = [one for kind, flags, one in self._segments if kind == _PT_LOAD and flags & _EXECUTABLE]
        self._sections = np.empty(0, _SECTION)
        if section_count and section_size == _SECTION.itemsize and section_count <= _MOST_SECTIONS:
            data = self.read(sections, section_size * section_count)
            self._sections = np.frombuffer(data, _SECTION)
        self._names_at = names

    def read(self, at: int, count: int) -> bytes:
        """Read a piece of the file, all of it."""
        if not 0 <= at < 1 << 62 or not 0 <= count <= _LONGEST:
            raise NotElf
        data = self._read(at, count)
        if len(data) < count:
            raise NotElf
        return data

    def at_address(self, address: int, count: int) -> bytes:
        """Read what is loaded at an address; fewer bytes where its segment ends in the file."""
        for kind, _, one in self._segments:
            if kind == _PT_LOAD and one.address <= address < one.address + one.size:
                return self.read(one.offset + address - one.address, min(count, one.address + one.size - address))
        raise NotElf

    def addresses(self, offsets: Ints) -> Ints:
        """At which addresses the code lies that is at these places of the file; -1 for what is no code."""
        found = np.full(len(offsets), -1, np.int64)
        for one in self.loads:
            inside = (offsets >= one.offset) & (offsets - one.offset < one.size)
            found[inside] = offsets[inside] - one.offset + one.address
        return found

    @property
    def unwind_table(self) -> Load | None:
        """Where the index of its call frame information lies, if it has one."""
        return next((one for kind, _, one in self._segments if kind == _PT_EH_FRAME), None)

    @property
    def build_id(self) -> bytes:
        """What its linker called this very file; empty if nothing."""
        for kind, _, one in self._segments:
            if kind == _PT_NOTE and one.size <= _PIECE:
                notes = self.read(one.offset, one.size)
                while len(notes) >= 12:
                    name, size, what = struct.unpack_from("<3I", notes)
                    begin = 12 + -(-name // 4) * 4
                    if what == _NT_BUILD_ID and notes[12 : 12 + name] == b"GNU\0":
                        return notes[begin : begin + size]
                    notes = notes[begin + -(-size // 4) * 4 :]
        return b""

    def functions(self, debug: ElfFile | None = None) -> Functions:
        """All functions that have a symbol with a size, in its own tables and in the small one packed into it.

        `debug` is a file with symbols that were taken out of this one.
        """
        tables = [self._table(kind) for kind in (_SHT_SYMTAB, _SHT_DYNSYM)]
        return Functions(tables + [more._table(_SHT_SYMTAB) for more in (self._packed(), debug) if more is not None])

    def _table(self, kind: int) -> tuple[npt.NDArray[np.void], bytes]:
        """The functions in the symbol table of this kind, and the names that they refer to; none if it is damaged."""
        try:
            return self._read_table(kind)
        except NotElf:
            return np.empty(0, _SYMBOL), b""

    def _read_table(self, kind: int) -> tuple[npt.NDArray[np.void], bytes]:
        for section in self._sections[self._sections["kind"] == kind]:
            if section["entry"] != _SYMBOL.itemsize or section["link"] >= len(self._sections):
                continue
            size = int(section["size"]) // _SYMBOL.itemsize * _SYMBOL.itemsize
            rows = np.frombuffer(self.read(int(section["offset"]), size), _SYMBOL)
            names = self._sections[section["link"]]
            is_function = (rows["info"] & 15 == _STT_FUNC) & (rows["section"] != 0)
            is_function &= (rows["size"] > 0) & (rows["size"] < _LARGEST) & (rows["value"] < 1 << 62)
            return rows[is_function], self.read(int(names["offset"]), int(names["size"]))
        return np.empty(0, _SYMBOL), b""

    def _packed(self) -> ElfFile | None:
        """The file of symbols that some distributions leave in stripped ones, packed."""
        section = self._section(".gnu_debugdata")
        if section is None:
            return None
        try:
            import lzma  # not in every Python
        except ImportError:
            return None
        try:
            unpacker = lzma.LZMADecompressor(memlimit=_LONGEST)
            data = unpacker.decompress(self.read(int(section["offset"]), int(section["size"])), _LONGEST_PACKED)
            return ElfFile(lambda at, count: data[at : at + count])
        except (lzma.LZMAError, EOFError, NotElf):
            return None

    def section_place(self, name: str) -> int | None:
        """How far behind its beginning a section of this name is loaded; None if it has none."""
        section = self._section(name)
        first = next((one.address for kind, _, one in self._segments if kind == _PT_LOAD and one.offset == 0), None)
        return None if section is None or first is None else int(section["address"]) - first

    def _section(self, name: str) -> np.void | None:
        if self._names_at >= len(self._sections):
            return None
        table = self._sections[self._names_at]
        names = self.read(int(table["offset"]), min(int(table["size"]), _PIECE))
        wanted = name.encode() + b"\0"
        for section in self._sections:
            if names[int(section["name"]) :].startswith(wanted):
                return section
        return None


class Functions:
    """The functions of a file; `find` gives their numbers. Each of `tables` has rows of symbols, and their names."""

    def __init__(self, tables: list[tuple[npt.NDArray[np.void], bytes]]) -> None:
        self._names = [names for _, names in tables]
        rows = np.concatenate([np.empty(0, _SYMBOL), *(rows for rows, _ in tables)])
        table = np.repeat(np.arange(len(tables)), np.array([len(rows) for rows, _ in tables], np.int64))
        # Of those that begin at one place the shortest is the innermost; it comes last.
        start, size = rows["value"].astype(np.int64), rows["size"].astype(np.int64)
        order = np.lexsort((-size, start))
        self._start, self._end = start[order], start[order] + size[order]
        self._row, self._table = rows[order], table[order]
        self._reach = np.maximum.accumulate(self._end) if len(order) else self._end

    def __len__(self) -> int:
        return len(self._start)

    def find(self, addresses: Ints) -> Ints:
        """The innermost function whose extent covers each address; -1 where none does."""
        if not len(self):
            return np.full(len(addresses), -1, np.int64)
        last = np.searchsorted(self._start, addresses, "right") - 1
        covered = (last >= 0) & (self._reach[np.maximum(last, 0)] > addresses)
        found: Ints = np.where(covered, last, -1)
        for row in np.flatnonzero(covered & (self._end[np.maximum(last, 0)] <= addresses)).tolist():
            # Within another one, behind a smaller one that it contains.
            at, address = int(last[row]), int(addresses[row])
            while at >= 0 and self._end[at] <= address:
                at = at - 1 if self._reach[at] > address else -1
            found[row] = at
        return found

    def name(self, function: int) -> str:
        """What a function is called. Of several names for the same code, the plainest."""
        start, end = self._start[function], self._end[function]
        first, last = np.searchsorted(self._start, start), np.searchsorted(self._start, start, "right")
        alike = [at for at in range(first, last) if self._end[at] == end]
        return min(map(self._text, alike), key=_plainness)

    def _text(self, function: int) -> str:
        names, at = self._names[self._table[function]], int(self._row[function]["name"])
        return plain_name(names[at : names.find(b"\0", at)].decode("utf-8", "replace"))


def _plainness(name: str) -> tuple[int, int, str]:
    return len(name) - len(name.lstrip("_")), len(name), name


_RUST_HASH = re.compile(r"17h[0-9a-f]{16}(?=E)")
_WORD = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_LENGTH = re.compile(r"[1-9]\d{0,3}")


def plain_name(symbol: str) -> str:
    """A symbol without its version; of C++ and Rust as its source has it, where that is names and nothing else."""
    symbol = symbol.partition("@")[0]
    is_nested = symbol.startswith("_ZN")
    if not symbol.startswith("_Z"):
        return symbol
    rest = _RUST_HASH.sub("", symbol[3:].lstrip("rVK") if is_nested else symbol[2:])
    parts: list[str] = []
    while (length := _LENGTH.match(rest)) and (is_nested or not parts):
        end = length.end() + int(length[0])
        parts.append(rest[length.end() : end])
        rest = rest[end:]
    # What follows are the types that the function takes, or the arguments of a template.
    is_plain = rest.startswith("E") if is_nested else not rest.startswith("I")
    return "::".join(parts) if parts and is_plain and all(map(_WORD.fullmatch, parts)) else symbol

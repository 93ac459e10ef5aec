"""The symbols of an object that is loaded in another process, read from that process's memory.

Not from its file: that may have been replaced since, or lie in a container. It takes a handful of small reads, by the
same tables that the dynamic linker uses.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator, Mapping

from giltrace.launch.attach.ptrace import read_memory

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_GNU_HASH = 5, 6, 10, 0x6FFFFEF5
_EXECUTABLE = 1
_SYMBOL = struct.Struct("<IBBHQQ")
_STT_GNU_IFUNC = 10
_PAGE = 4096


class NotElf(Exception):
    """There is no ELF64 object with a dynamic section at that address."""


class LoadedObject:
    """The object whose first page is mapped at `start` in process `pid`. Raises NotElf, or OSError, Gone, Denied."""

    def __init__(self, pid: int, start: int) -> None:
        self._pid = pid
        head = self._read(start, 64)
        if head[:5] != b"\x7fELF\x02":
            raise NotElf
        (offset,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        table = self._read(start + offset, size * count)
        segments = [struct.unpack_from("<IIQQQQQQ", table, at) for at in range(0, size * count, size)]
        loads = [(flags, address, length) for kind, flags, _, address, _, _, length, _ in segments if kind == _PT_LOAD]
        if not loads:
            raise NotElf
        self.base = start - loads[0][1] // _PAGE * _PAGE
        #: Where its code lies.
        self.text = [(self.base + a, self.base + a + length) for flags, a, length in loads if flags & _EXECUTABLE]
        self.dynamically_linked = any(segment[0] == _PT_INTERP for segment in segments)
        dynamic = [(segment[3], segment[6]) for segment in segments if segment[0] == _PT_DYNAMIC]
        if not dynamic:
            raise NotElf
        self._tables = self._read_dynamic(*dynamic[0])

    def _read(self, address: int, size: int) -> bytes:
        data = read_memory(self._pid, address, size)
        if len(data) < size:
            raise NotElf
        return data

    def _read_dynamic(self, address: int, size: int) -> Mapping[int, int]:
        data = self._read(self.base + address, size)
        entries = dict(struct.iter_unpack("<QQ", data[: len(data) // 16 * 16]))
        # glibc relocates these addresses in place, musl does not.
        for tag in (_DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH):
            if tag not in entries:
                raise NotElf
            entries[tag] += self.base if entries[tag] < self.base else 0
        return entries

    @functools.cached_property
    def _strings(self) -> bytes:
        return self._read(self._tables[_DT_STRTAB], self._tables[_DT_STRSZ])

    def _name_at(self, offset: int) -> bytes:
        return self._strings[offset : self._strings.index(b"\0", offset)]

    def address(self, name: str) -> int | None:
        """Return the address that it defines the function or variable `name` at, None if it does not."""
        for kind, section, value in self._hashed(name):
            if section and value and kind != _STT_GNU_IFUNC:
                return int(self.base + value)
        return None

    def imports(self, name: str) -> bool:
        """Tell whether it uses `name` from another object."""
        if any(section == 0 for _, section, _ in self._hashed(name)):
            return True  # as an address that is the same in all objects
        # Other imports are not hashed and come first.
        (first,) = struct.unpack("<I", self._read(self._tables[_DT_GNU_HASH] + 4, 4))
        table = self._read(self._tables[_DT_SYMTAB], first * _SYMBOL.size)
        symbols = _SYMBOL.iter_unpack(table)
        return any(section == 0 and self._name_at(text) == name.encode() for text, _, _, section, _, _ in symbols)

    def _hashed(self, name: str) -> Iterator[tuple[int, int, int]]:
        """The kind, section and value of each symbol of that name in the hash table."""
        table = self._tables[_DT_GNU_HASH]
        buckets, first, bloom, _ = struct.unpack("<4I", self._read(table, 16))
        wanted = _gnu_hash(name)
        bucket = table + 16 + bloom * 8 + wanted % buckets * 4 if buckets else 0
        (index,) = struct.unpack("<I", self._read(bucket, 4)) if bucket else (0,)
        while index >= first and index:
            (entry,) = struct.unpack("<I", self._read(table + 16 + bloom * 8 + (buckets + index - first) * 4, 4))
            if entry | 1 == wanted | 1:
                symbol = self._read(self._tables[_DT_SYMTAB] + index * _SYMBOL.size, _SYMBOL.size)
                text, info, _, section, value, _ = _SYMBOL.unpack(symbol)
                if self._name_at(text) == name.encode():
                    yield info & 15, section, value
            if entry & 1:
                break
            index += 1

    def code(self, pattern: bytes) -> int | None:
        """Return the address of these bytes in its code, None if they are not there."""
        for start, end in self.text:
            at = self._read(start, end - start).find(pattern)
            if at >= 0:
                return int(start + at)
        return None

    def read(self, address: int, size: int) -> bytes:
        """Read memory of the same process."""
        return self._read(address, size)


def _gnu_hash(name: str) -> int:
    value = 5381
    for byte in name.encode():
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value

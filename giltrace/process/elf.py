"""The symbols of an object that is loaded in another process, read from that process's memory.

Not from its file: that may have been replaced since, or lie in a container. It takes a handful of small reads, by the
same tables that the dynamic linker uses. What is there need not be what it looks like: all of it is checked.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping

#: Reads so many bytes at an address; fewer, or an OSError, where there is no memory.
Read = Callable[[int, int], bytes]

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP, _PT_GNU_RELRO = 1, 2, 3, 0x6474E552
_DT_PLTRELSZ, _DT_PLTGOT, _DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH = 2, 3, 5, 6, 0x6FFFFEF5
_EXECUTABLE = 1
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_VALUE = 8  # where a symbol has its value
_RELOCATION = 24  # bytes
_STT_GNU_IFUNC = 10
_PAGE = 4096

#: No table, and no code that is searched, is longer; no chain of symbols, either.
_BYTES_MAX = 1 << 26
_CHAIN_MAX = 1 << 12


class NotElf(Exception):
    """There is no ELF64 object with a dynamic section at that address, or its tables make no sense."""


class LoadedObject:
    """The object whose first page is mapped at `start`, in a process whose memory `read` reads.

    Everything here raises NotElf, and what `read` raises other than OSError.
    """

    def __init__(self, read: Read, start: int) -> None:
        self._memory = read
        head = self.read(start, 64)
        if head[:5] != b"\x7fELF\x02":
            raise NotElf
        (offset,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        if size != _SEGMENT.size:
            raise NotElf
        segments = list(_SEGMENT.iter_unpack(self.read(start + offset, size * count)))
        loads = [(flags, address, length) for kind, flags, _, address, _, _, length, _ in segments if kind == _PT_LOAD]
        dynamic = [(segment[3], segment[6]) for segment in segments if segment[0] == _PT_DYNAMIC]
        if not loads or not dynamic:
            raise NotElf
        self.start = start
        self.base = start - loads[0][1] // _PAGE * _PAGE
        #: Where its code lies.
        self.text = [(self.base + a, self.base + a + length) for flags, a, length in loads if flags & _EXECUTABLE]
        self.dynamically_linked = any(segment[0] == _PT_INTERP for segment in segments)
        self._tables = self._read_dynamic(*dynamic[0])
        #: Where it has the addresses of what it imports, (start, end) each.
        self.slots = [(self.base + s[3], self.base + s[3] + s[6]) for s in segments if s[0] == _PT_GNU_RELRO]
        if _DT_PLTGOT in self._tables:
            first, calls = self._tables[_DT_PLTGOT], self._tables.get(_DT_PLTRELSZ, 0) // _RELOCATION
            self.slots.append((first, first + 8 * (3 + calls)))

    def read(self, address: int, size: int) -> bytes:
        """Read memory of the same process, all of it."""
        if not 0 <= address < 1 << 63 or not 0 <= size <= _BYTES_MAX:
            raise NotElf
        try:
            data = self._memory(address, size)
        except OSError:
            raise NotElf from None
        if len(data) < size:
            raise NotElf
        return data

    def _word(self, address: int) -> int:
        return int.from_bytes(self.read(address, 4), "little")

    def _read_dynamic(self, address: int, size: int) -> Mapping[int, int]:
        data = self.read(self.base + address, size)
        entries = dict(struct.iter_unpack("<QQ", data[: len(data) // 16 * 16]))
        # glibc relocates these addresses in place, musl does not.
        for tag in (_DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH):
            if tag not in entries:
                raise NotElf
        for tag in (_DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH, _DT_PLTGOT):
            if tag in entries:
                entries[tag] += self.base if entries[tag] < self.base else 0
        return entries

    def is_code(self, address: int) -> bool:
        """Tell whether its code is there."""
        return any(start <= address < end for start, end in self.text)

    def address(self, name: str) -> int | None:
        """Return the address that it defines the function or variable `name` at, None if it does not."""
        return next((self.base + value for value, _ in self.definitions(name)), None)

    def definitions(self, name: str) -> Iterator[tuple[int, int]]:
        """The value of each symbol that defines `name`, less `base`, and the address of the word that says so."""
        for kind, section, value, place in self._hashed(name):
            if section and value and kind != _STT_GNU_IFUNC:
                yield value, place

    def imports(self, name: str) -> bool:
        """Tell whether it uses `name` from another object."""
        if any(section == 0 for _, section, _, _ in self._hashed(name)):
            return True  # as an address that is the same in all objects
        # Other imports are not hashed and come first.
        first = self._word(self._tables[_DT_GNU_HASH] + 4)
        symbols = _SYMBOL.iter_unpack(self.read(self._tables[_DT_SYMTAB], first * _SYMBOL.size))
        return any(section == 0 and self._is_named(text, name) for text, _, _, section, _, _ in symbols)

    def _is_named(self, text: int, name: str) -> bool:
        wanted = name.encode() + b"\0"
        try:
            return self.read(self._tables[_DT_STRTAB] + text, len(wanted)) == wanted
        except NotElf:
            return False  # a shorter name, at the very end of the memory

    def _hashed(self, name: str) -> Iterator[tuple[int, int, int, int]]:
        """The kind, section and value of each symbol of that name in the hash table, and where its value stands."""
        table = self._tables[_DT_GNU_HASH]
        buckets, first, bloom, _ = struct.unpack("<4I", self.read(table, 16))
        if buckets == 0:
            raise NotElf
        wanted = _gnu_hash(name)
        table += 16 + bloom * 8
        begin = self._word(table + wanted % buckets * 4)
        if begin < first or begin == 0:
            return
        for index in range(begin, begin + _CHAIN_MAX):
            entry = self._word(table + (buckets + index - first) * 4)
            if entry | 1 == wanted | 1:
                place = self._tables[_DT_SYMTAB] + index * _SYMBOL.size
                text, info, _, section, value, _ = _SYMBOL.unpack(self.read(place, _SYMBOL.size))
                if self._is_named(text, name):
                    yield info & 15, section, value, place + _VALUE
            if entry & 1:
                return
        raise NotElf

    def code(self, pattern: bytes) -> int | None:
        """Return the address of these bytes in its code, None if they are not there."""
        for start, end in self.text:
            at = self.read(start, end - start).find(pattern)
            if at >= 0:
                return int(start + at)
        return None


def _gnu_hash(name: str) -> int:
    value = 5381
    for byte in name.encode():
        value = (value * 33 + byte) & 0xFFFFFFFF
    return value

"""Another process as it looks from outside: its memory, and the symbols of what is loaded in it.

Symbols are read from its memory, not from files: those may have been replaced since, or lie in a container.
"""

from __future__ import annotations

import os
import re
import struct
from dataclasses import dataclass

_MAP = re.compile(r"([0-9a-f]+)-[0-9a-f]+ \S+ 0+ \S+ [1-9]\d* +(.*)")
_PT_LOAD, _PT_DYNAMIC = 1, 2
_DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH = 5, 6, 0x6FFFFEF5
_SYMBOL = struct.Struct("<IBBHQQ")


class Memory:
    """The memory of process `pid`, for reading. Raises OSError where that is not allowed, or there is nothing."""

    def __init__(self, pid: int) -> None:
        self._fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)

    def read(self, address: int, size: int) -> bytes:
        """Return `size` bytes; raises OSError if not all of them are there."""
        if not 0 <= address < 1 << 63:
            raise OSError(f"no address: {address:#x}")
        data = os.pread(self._fd, size, address)
        if len(data) < size:
            raise OSError(f"no memory at {address:#x}")
        return data

    def word(self, address: int, size: int = 8) -> int:
        """Return an unsigned integer of `size` bytes."""
        return int.from_bytes(self.read(address, size), "little")

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._fd)


@dataclass(frozen=True)
class LoadedObject:
    """A file that is mapped into a process from its beginning on, at `start`."""

    memory: Memory
    start: int
    path: str

    def symbol(self, name: str) -> int | None:
        """Return the address of what the object defines as `name`, None if it does not or is no ELF64 object."""
        try:
            return self._symbol(name)
        except (OSError, struct.error, KeyError, ZeroDivisionError):
            return None

    def _symbol(self, name: str) -> int | None:
        base, dynamic = self._dynamic()
        symbols, strings = dynamic[_DT_SYMTAB], dynamic[_DT_STRTAB]
        hashes = dynamic[_DT_GNU_HASH]
        buckets, first, bloom, _ = struct.unpack("<4I", self.memory.read(hashes, 16))
        table = hashes + 16 + 8 * bloom
        wanted = 5381
        for byte in name.encode():
            wanted = (wanted * 33 + byte) & 0xFFFFFFFF
        index = self.memory.word(table + 4 * (wanted % buckets), 4)
        while index >= first:
            chain = self.memory.word(table + 4 * (buckets + index - first), 4)
            if chain | 1 == wanted | 1:
                text, _, _, section, value, _ = _SYMBOL.unpack(
                    self.memory.read(symbols + _SYMBOL.size * index, _SYMBOL.size)
                )
                if section and self.memory.read(strings + text, len(name) + 1) == name.encode() + b"\0":
                    return base + int(value)
            if chain & 1:
                break
            index += 1
        return None

    def _dynamic(self) -> tuple[int, dict[int, int]]:
        """Return what addresses in the file are relative to, and the entries of its dynamic section."""
        head = self.memory.read(self.start, 64)
        if head[:5] != b"\x7fELF\x02":
            raise KeyError("not ELF64")
        (offset,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        table = self.memory.read(self.start + offset, size * count)
        segments = [struct.unpack_from("<IIQQQQQQ", table, at) for at in range(0, size * count, size)]
        base = self.start - next(address & ~0xFFF for kind, _, _, address, *_ in segments if kind == _PT_LOAD)
        for kind, _, _, address, _, _, length, _ in segments:
            if kind == _PT_DYNAMIC:
                data = self.memory.read(base + address, length)
                entries = dict(struct.iter_unpack("<QQ", data))
                # glibc relocates the addresses in place, musl does not.
                tables = {tag: v + base if v < base else v for tag, v in entries.items()}
                return base, tables
        raise KeyError("no dynamic section")


def loaded_objects(pid: int, memory: Memory) -> list[LoadedObject]:
    """Return the files that are mapped into the process from their beginning on, those named python first."""
    found: dict[str, LoadedObject] = {}
    with open(f"/proc/{pid}/maps", errors="replace") as maps:
        for line in maps:
            match = _MAP.match(line)
            if match is not None:
                found.setdefault(match[2], LoadedObject(memory, int(match[1], 16), match[2]))
    return sorted(found.values(), key=lambda one: "python" not in os.path.basename(one.path))

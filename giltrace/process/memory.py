"""Another process as it looks from outside: its memory, and what is loaded in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from giltrace.process.elf import LoadedObject, NotElf
from giltrace.process.kernel_text import lines_of

_MAP = re.compile(r"([0-9a-f]+)-[0-9a-f]+ \S+ 0+ \S+ [1-9]\d* +(.*)")


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


def loaded_objects(pid: int, memory: Memory) -> Iterator[tuple[str, LoadedObject]]:
    """The objects that are mapped into the process from their beginning on, by path; those named python first."""
    found: dict[str, int] = {}
    for line in lines_of(f"/proc/{pid}/maps"):
        match = _MAP.match(line)
        if match is not None:
            found.setdefault(match[2], int(match[1], 16))
    for path in sorted(found, key=lambda path: "python" not in os.path.basename(path)):
        try:
            loaded = LoadedObject(memory.read, found[path])
        except NotElf:
            continue
        yield path, loaded

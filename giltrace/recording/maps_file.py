"""maps.bin as it is written: what processes have mapped that the kernel told nobody. `code_samples.py` reads it."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterable
from pathlib import Path

from giltrace.process.kernel_text import lines_of
from giltrace.recording.perf_types import ANONYMOUS, Type

MAPS = "maps.bin"
#: Of a sample at most so many addresses are kept.
DEPTH = 5

#: The body of a record of a mapping, but for the name.
MMAP = struct.Struct("<IIQQQIIQQII")
_READ_EXECUTE, _PRIVATE = 5, 2
_TRAILER = struct.Struct("<IIQII")
_MAPPED = re.compile(r"([0-9a-f]+)-([0-9a-f]+) ..x. ([0-9a-f]+) ([0-9a-f]+):([0-9a-f]+) (\d+) *(.*)")


class MapsFile:
    """Writes `maps.bin`: what processes have mapped that may not be in the other files."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / MAPS
        self._seen: dict[int, list[bytes]] = {}

    def look(self, pids: Iterable[int], time: int) -> None:
        """Write what processes have mapped by now, if that is new, as of `time` (ns). Raises OSError."""
        with self._path.open("ab") as file:
            for pid in pids:
                now = _mappings(pid)
                if now and now != self._seen.get(pid):
                    self._seen[pid] = now
                    trailer = _TRAILER.pack(pid, pid, time, 0, 0)
                    size = 8 + len(trailer)
                    heads = (struct.pack("<IHH", Type.MMAP2, 0, size + len(body)) for body in now)
                    file.write(b"".join(head + body + trailer for head, body in zip(heads, now, strict=True)))


def _mappings(pid: int) -> list[bytes]:
    """The mappings of code that a process has by now, as bodies of records; none if it may not be looked at."""
    try:
        found = [match for line in lines_of(f"/proc/{pid}/maps") if (match := _MAPPED.fullmatch(line))]
    except OSError:
        return []
    bodies = []
    for match in found:
        start, end, place, major, minor = (int(match[group], 16) for group in range(1, 6))
        head = MMAP.pack(pid, pid, start, end - start, place, major, minor, int(match[6]), 0, _READ_EXECUTE, _PRIVATE)
        name = os.fsencode(match[7].removesuffix(" (deleted)") or ANONYMOUS)
        bodies.append(head + name + b"\0" * (8 - len(name) % 8))
    return bodies

"""cores.bin as it is written: how many cores each process may use, and since when. `cores.py` reads it."""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from giltrace.process.cores import Allowed, allowed
from giltrace.recording.folder import GIL_NAME

FILE = "cores.bin"

#: How often a process is looked at: reading is cheap, but a process may have thousands of threads.
LOOK_NS = 250_000_000

#: A core's time has so many units of a quota.
QUOTA_UNIT = 1000

#: A row, as `cores.ALLOWED` has it.
_ALLOWED = struct.Struct("<qIIQ")


class CoresLog:
    """Writes to the recording `folder` what its processes may use, and that of process `pid`, whenever it changes.

    A change is dated back to the look before, when it may already have been so: programs limit themselves first.
    """

    def __init__(self, folder: Path, pid: int = 0, *, alone: bool = False) -> None:
        """With `alone`, the processes that have files in `folder` are not looked at: their ids are not those here."""
        self._folder, self._alone = folder, alone
        self._living = {pid} if pid else set[int]()
        self._files: set[str] = set()
        self._told: dict[int, Allowed] = {}
        self._looked: dict[int, int] = {}
        self._next = 0
        self.look()

    def look(self, *, now: bool = False) -> None:
        """Look at all processes that live, if it is time or has to be `now`."""
        time_ns = time.monotonic_ns()
        if time_ns < self._next and not now:
            return
        self._next = time_ns + LOOK_NS
        self._discover()
        rows = b"".join(row for pid in sorted(self._living) for row in self._row(pid, time_ns))
        if rows:
            # What cannot be written is not known: no reason to end a recording.
            with contextlib.suppress(OSError), (self._folder / FILE).open("ab") as file:
                file.write(rows)

    def _discover(self) -> None:
        if self._alone:
            return
        with contextlib.suppress(OSError):
            names = set(filter(GIL_NAME.fullmatch, os.listdir(self._folder)))
            self._living |= {int(name.split("-")[1]) for name in names - self._files}
            self._files |= names

    def _row(self, pid: int, now: int) -> Iterator[bytes]:
        try:
            found = allowed(pid)
        except OSError:
            self._living.discard(pid)
            return
        since = self._looked.get(pid, now)
        self._looked[pid] = now
        if self._told.get(pid) == found:
            return
        self._told[pid] = found
        quota = max(1, round(found.quota * QUOTA_UNIT)) if found.quota is not None else 0
        yield _ALLOWED.pack(since, pid, found.cpus, quota)

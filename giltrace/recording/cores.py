"""cores.bin: how many cores each process may use, and since when."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

import numpy as np

from giltrace.process.cores import Allowed, allowed
from giltrace.recording.door import MAX_CPU, MAX_ID, Damaged, Times, leaving_out, read_data
from giltrace.recording.events import Array
from giltrace.recording.folder import GIL_NAME

FILE = "cores.bin"

#: From `since` (ns) on, process `pid` may run on `cpus` cores, and use `quota` thousandths of a core's time, 0 for any.
ALLOWED = np.dtype([("since", "<i8"), ("pid", "<u4"), ("cpus", "<u4"), ("quota", "<u8")])

#: How often a process is looked at: reading is cheap, but a process may have thousands of threads.
LOOK_NS = 250_000_000

_QUOTA_UNIT = 1000
# More than two million changes take.
_MOST_BYTES = 64 << 20


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
        rows = [row for pid in sorted(self._living) for row in self._row(pid, time_ns)]
        if rows:
            # What cannot be written is not known: no reason to end a recording.
            with contextlib.suppress(OSError), (self._folder / FILE).open("ab") as file:
                file.write(np.array(rows, ALLOWED).tobytes())

    def _discover(self) -> None:
        if self._alone:
            return
        with contextlib.suppress(OSError):
            names = set(filter(GIL_NAME.fullmatch, os.listdir(self._folder)))
            self._living |= {int(name.split("-")[1]) for name in names - self._files}
            self._files |= names

    def _row(self, pid: int, now: int) -> list[tuple[int, int, int, int]]:
        try:
            found = allowed(pid)
        except OSError:
            self._living.discard(pid)
            return []
        since = self._looked.get(pid, now)
        self._looked[pid] = now
        if self._told.get(pid) == found:
            return []
        self._told[pid] = found
        return [(since, pid, found.cpus, max(1, round(found.quota * _QUOTA_UNIT)) if found.quota is not None else 0)]


def read_cores(folder: Path, times: Times, damage: list[str]) -> Array:
    """The rows (dtype `ALLOWED`) of a recording, sorted by time; empty for one from before there were any.

    What makes no sense is left out, and said in `damage`.
    """
    refused: list[Damaged] = []
    data = b""
    with leaving_out(folder / FILE, refused):
        data = read_data(folder / FILE, _MOST_BYTES)
    damage += [one.left_out() for one in refused]
    rows = np.frombuffer(data[: len(data) // ALLOWED.itemsize * ALLOWED.itemsize], ALLOWED)
    good = times.have(rows["since"]) & (rows["pid"] > 0) & (rows["pid"] <= MAX_ID)
    good &= (rows["cpus"] > 0) & (rows["cpus"] <= MAX_CPU + 1) & (rows["quota"] <= (MAX_CPU + 1) * _QUOTA_UNIT)
    if not good.all():
        damage.append(f"{FILE}: {int((~good).sum())} entries make no sense: left out")
    rows = rows[good]
    return rows[np.argsort(rows["since"], kind="stable")]


def quota_of(row: np.void) -> float | None:
    """The quota of a row (dtype `ALLOWED`) in cores, None for none."""
    return int(row["quota"]) / _QUOTA_UNIT or None

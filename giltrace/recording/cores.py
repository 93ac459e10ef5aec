"""cores.bin: how many cores each process may use, and since when."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from giltrace.recording.cores_log import FILE, QUOTA_UNIT
from giltrace.recording.door import MAX_CPU, MAX_ID, Damaged, Times, leaving_out, read_data
from giltrace.recording.events import Array

#: From `since` (ns) on, process `pid` may run on `cpus` cores, and use `quota` thousandths of a core's time, 0 for any.
ALLOWED = np.dtype([("since", "<i8"), ("pid", "<u4"), ("cpus", "<u4"), ("quota", "<u8")])

# More than two million changes take.
_MOST_BYTES = 64 << 20


def read_cores(folder: Path, times: Times, damage: list[str]) -> Array:
    """The rows (dtype `ALLOWED`) of a recording, sorted by time; empty for one from before there were any.

    What makes no sense is left out, and said in `damage`.
    """
    refused: list[Damaged] = []
    data = bytearray()
    with leaving_out(folder / FILE, refused):
        data = read_data(folder / FILE, _MOST_BYTES)
    damage += [one.left_out() for one in refused]
    rows = np.frombuffer(data[: len(data) // ALLOWED.itemsize * ALLOWED.itemsize], ALLOWED)
    good = times.have(rows["since"]) & (rows["pid"] > 0) & (rows["pid"] <= MAX_ID)
    good &= (rows["cpus"] > 0) & (rows["cpus"] <= MAX_CPU + 1) & (rows["quota"] <= (MAX_CPU + 1) * QUOTA_UNIT)
    if not good.all():
        damage.append(f"{FILE}: {int((~good).sum())} entries make no sense: left out")
    rows = rows[good]
    return rows[np.argsort(rows["since"], kind="stable")]


def quota_of(row: np.void) -> float | None:
    """The quota of a row (dtype `ALLOWED`) in cores, None for none."""
    return int(row["quota"]) / QUOTA_UNIT or None

"""Which holds stand for several quiet ones (`recording.gathering`), and for how many."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from giltrace.timeline.axis import Ints
from giltrace.timeline.model import GATHERED, Array, Process, Timeline


def placed(rows: Array, holds: Array) -> Array:
    """Find the holds (dtype `HOLD`, sorted by start) that the `rows` (dtype `events.GATHERED`) tell of: `GATHERED`."""
    found = np.empty(len(rows), GATHERED)
    for name in ("count", "longest", "hand_offs", "before"):
        found[name] = rows[name]
    at = np.searchsorted(holds["start"], rows["start"])
    hold = np.full(len(rows), -1, np.int64)
    # Where several begin at once, all but the last take no time.
    for _ in range(len(holds)):
        looking = np.flatnonzero((hold < 0) & (at < len(holds)))
        looking = looking[holds["start"][at[looking]] == rows["start"][looking]]
        if len(looking) == 0:
            break
        here = holds[at[looking]]
        same = (here["thread"] == rows["thread"][looking]) & (here["end"] == rows["end"][looking])
        hold[looking[same]] = at[looking[same]]
        at[looking[~same]] += 1
    found["hold"] = hold
    found = found[hold >= 0]
    return found[np.argsort(found["hold"], kind="stable")]


def times(process: Process) -> Ints:
    """How many holds each of a process's stands for."""
    result = np.ones(len(process.holds), np.int64)
    result[process.gathered["hold"]] = process.gathered["count"]
    return result


def as_they_are(timeline: Timeline) -> tuple[int, int]:
    """How many holds are told as they were, and how many there were."""
    rows = sum(len(process.holds) - len(process.gathered) for process in timeline.processes)
    return rows, number(timeline.processes)


def number(processes: Iterable[Process]) -> int:
    """How many holds processes had."""
    return sum(len(one.holds) + int((one.gathered["count"] - 1).sum()) for one in processes)


def kept(process: Process, holds: Ints) -> Array:
    """Those of the gathered that are left if only these holds are, given by their numbers in order."""
    at = np.searchsorted(holds, process.gathered["hold"])
    left = np.append(holds, -1)[at] == process.gathered["hold"]
    rows: Array = process.gathered[left].copy()
    rows["hold"] = at[left]
    return rows

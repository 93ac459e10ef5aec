"""Jobs so small that handing them over takes more of the GIL than they do themselves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.own_line import of_libraries
from giltrace.analysis.measure.stretches import stretches
from giltrace.recording.events import StackTable
from giltrace.timeline.axis import Ints
from giltrace.timeline.collections import FILE as COLLECTOR
from giltrace.timeline.model import Process
from giltrace.timeline.once import once

#: Jobs are small if handing them over takes this part of the time in which the GIL is held: what a job takes to hand
#: over is some 50 us, so that there are many of them then, too ...
HAND_OVER_SHARE = 0.5
#: ... and if it takes this part of the time that the threads had: as much as makes it contention. Where they wait for
#: the world, the little that they run may well be that.
LEAST_SHARE = 0.3

#: What hands jobs over, by a part of the paths of its files, and how it is told to hand over more at a time.
_WAYS = (
    (
        "/concurrent/futures/",
        "concurrent.futures",
        "Let each job do many: submit slices of the list, not its items (for threads, Executor.map has no chunks)",
    ),
    (
        "/multiprocessing/pool.py",
        "multiprocessing.pool",
        "Let each job do many: give imap, imap_unordered or map a large chunksize, or pass slices of the list",
    ),
    ("/queue.py", "queue", "Put many items into the queue at a time, as one list"),
)
#: Functions there that call the jobs: one in C has no frame of its own.
_CALLERS = frozenset({"run", "worker", "mapstar", "starmapstar", "_process_worker", "_process_chunk"})
#: What is on the way of all of these, and of anything else with threads.
_BETWEEN = ("/threading.py",)


class HandOver(NamedTuple):
    """The `share` of the held time that handing jobs over took, by what, and the `advice`."""

    share: float
    by: str
    advice: str


@once
def _held_by(process: Process) -> Ints:
    """For how long the GIL was held in each of `_WAYS`, in ns."""
    if process.stacks is None or not len(process.stacks.table):
        return np.zeros(len(_WAYS), np.int64)
    held = stretches(process)
    way = np.append(_ways(process.stacks.table), -1)[held.stack]
    mine = way >= 0
    return np.bincount(way[mine], usage.lengths(held.holds)[mine], len(_WAYS)).astype(np.int64)


def hand_over(f: Figures) -> HandOver | None:
    """Did it take more of the GIL to hand jobs over than to do them, and much of the time?"""
    ns = _held_by(f.process)
    share = float(ns.sum() / max(f.held_ns, 1))
    if share < HAND_OVER_SHARE or share * f.used_ns < LEAST_SHARE * f.had:
        return None
    _, by, how = _WAYS[int(ns.argmax())]
    return HandOver(
        share,
        by,
        f"The jobs are too small: handing them over ({by}) takes more of the GIL than they do, and processes would "
        f"take longer still for that. {how}.",
    )


def _ways(table: StackTable) -> Ints:
    """Which of `_WAYS` each stack is in at its inner end, but for collections and locks that led to; -1 for none."""
    library = of_libraries(table)
    of_file, between = np.full(len(table.strings), -1, np.int64), np.zeros(len(table.strings), np.bool_)
    for at in np.flatnonzero(library).tolist():
        file = "/" + table.strings[at]
        if "-packages/" in file:
            continue
        between[at] = table.strings[at] == COLLECTOR or file.endswith(_BETWEEN)
        of_file[at] = next((way for way, (part, *_) in enumerate(_WAYS) if part in file), -1)
    calls = np.array([text.rpartition(".")[2] in _CALLERS for text in table.strings], np.bool_)
    frames = table.frames
    place = np.append(np.flatnonzero(~between[frames["file"]]), len(frames))
    found = place[np.searchsorted(place, table.offsets[:-1])]
    own = np.where(calls[frames["function"]], -1, of_file[frames["file"]])
    return np.where(found < table.offsets[1:], np.append(own, -1)[found], -1)

"""Whose the GILs were when the tracer came to a process that ran already, for those who follow its recording.

From then on each release is on record, and a thread that keeps a GIL gives nothing to write down. So its hold is begun
here, as `giltrace.timeline.holders` does it afterwards.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from giltrace.errors import RecordingError
from giltrace.recording.events import GIL_EVENT, ThreadInfo
from giltrace.recording.layout import NO_CORE, Kind
from giltrace.recording.meta import FILE, Meta

if TYPE_CHECKING:
    from giltrace.recording.live import Update


class Holder(NamedTuple):
    """A thread, by its id and name, and the address of the mutex of the GIL that it has."""

    tid: int
    name: str
    address: int


class Holders:
    """What a recording's `Meta` tells of the time before the tracer came, as soon as that is written down.

    It was so at `known_ns` or before; 0 as long as nothing is known.
    """

    def __init__(self, folder: Path) -> None:
        self.known_ns = 0
        self._path = folder / FILE
        self._seen: tuple[int, int] | None = None
        self._of: dict[int, list[Holder]] = {}

    def look(self) -> None:
        """See whether there is something new."""
        try:
            found = os.stat(self._path)
            if self.known_ns or self._seen == (found.st_ino, found.st_mtime_ns):
                return
            self._seen = found.st_ino, found.st_mtime_ns
            meta = Meta.read(self._path.parent)
        except (OSError, RecordingError):
            return  # what the tracers have written is there all the same
        # The tracer knows ids as they are in the process's own pid namespace.
        inside = {here: int(its) for its, here in meta.ids.items()}
        for pid, tid, address in meta.holders:
            holder = Holder(inside.get(tid, tid), meta.thread_names.get(str(tid), ""), address)
            self._of.setdefault(inside.get(pid, pid), []).append(holder)
        self.known_ns = time.monotonic_ns() if self._of else 0

    def of(self, pid: int) -> list[Holder]:
        """Those of a process's GILs; they are given once: the program that it goes on with begins anew."""
        return self._of.pop(pid, [])

    def has(self, pid: int) -> bool:
        """Whether there is something to be given."""
        return pid in self._of


def with_holders(update: Update, holders: list[Holder], since_ns: int) -> Update:
    """A process's first update with the holds in it, from `since_ns` on, that began before and have not ended."""
    file, kind = update.file, update.events["kind"]
    if file.lost or file.missed:
        return update
    turns = update.events["gil"][(kind == Kind.ACQUIRE) | (kind == Kind.RELEASE)]
    moved = {*np.unique(turns).tolist(), *file.passed_over}
    known, rows, threads = file.gils, [], {}
    for place, holder in enumerate(holders):
        # The main interpreter's is the first. The others are numbered as the tracer meets them: any may be the next.
        if holder.tid and (holder.address in known or place == 0):
            gil = known.index(holder.address) if holder.address in known else 0
            if gil not in moved:
                file.unmet[gil] = holder.address
                thread = file.number_of(holder.tid)
                threads[thread] = ThreadInfo(holder.tid, holder.name)
                rows.append((max(file.start, since_ns), NO_CORE, thread, gil, Kind.ACQUIRE, 0, -1))
    if not rows:
        return update
    events = np.concatenate([np.array(rows, GIL_EVENT), update.events])
    events = events.take(np.argsort(events["time"], kind="stable"))
    return replace(update, events=events, threads={**threads, **update.threads})

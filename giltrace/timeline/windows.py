"""A long recording in windows of time: the holds and waits of each, with all that they are told by.

What a window takes is the memory of its events. From one to the next go the events that explain what comes: those since
the begin of whatever is under way, and the last hold of each thread. So a hold or a wait that reaches across the end of
a window is one row of one window, and all its figures are those that it has in the whole recording. Where a thread
waits for a GIL, or has one, for long, what others do with GILs meanwhile is kept until that ends.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from giltrace.recording.door import Times
from giltrace.recording.events import GIL_EVENT, Outlined
from giltrace.recording.fleet import read_fleet
from giltrace.recording.gil import are_exact, read_again
from giltrace.recording.layout import Kind
from giltrace.recording.merged import has_merged
from giltrace.recording.meta import Meta
from giltrace.recording.order import joined
from giltrace.timeline.axis import NEVER
from giltrace.timeline.blocks import Blocks
from giltrace.timeline.collections import renumbered
from giltrace.timeline.holds import Usage, match
from giltrace.timeline.load import load
from giltrace.timeline.model import BLOCK, GATHERED, HELD_LOCK, LOCK, Array, Flag, Process, Timeline
from giltrace.timeline.stacks import attribute

#: So many new events make a window.
EVENTS = 1 << 19

_NONE = np.empty(0, np.int32)
_NO_BLOCKS = Blocks(np.empty(0, BLOCK), np.empty(0, LOCK), np.empty(0, HELD_LOCK), _NONE, _NONE)


@dataclass(frozen=True)
class Window:
    """A window [since, until) in ns: rows that begin in it are its own, the others of the `process` explain these.

    `first_hold` is what the number of a hold in the process is counted from to be that in the recording.
    """

    process: Process
    since: int
    until: int
    first_hold: int

    def own(self, rows: Array) -> slice:
        """Which of the rows, sorted by start or time, are its own."""
        begin = rows["time"] if "time" in (rows.dtype.names or ()) else rows["start"]
        return slice(*np.searchsorted(begin, (self.since, self.until)).tolist())


def outline(folder: Path) -> Timeline | None:
    """The outline of a recording whose `windows` can be read; None if only the whole tells what it was.

    So it is where records were lost, or forgotten by a ring, or are not exact; where it is not over yet; and where
    several machines, or a scheduler's tasks, were recorded. Mostly that is known before anything is read.
    """
    meta = Meta.read(folder)
    unfinished = not meta.finished and meta.is_of_this_boot
    if meta.trigger is not None or unfinished or read_fleet(folder).parts or has_merged(folder):
        return None
    if not are_exact(folder, Times.of(meta.start_ns, meta.end_ns)):
        return None
    timeline = load(folder, outline=True)
    return timeline if all(_is_exact(process) for process in timeline.processes) else None


def _is_exact(process: Process) -> bool:
    """Whether it lost nothing, which single threads may have, and nothing before its cores were known."""
    outlined = process.outlined
    return not process.lost and not process.overwritten and (outlined is None or outlined.in_order)


def windows(process: Process) -> Iterator[Window]:
    """Read the windows of a process of an `outline`."""
    outlined = process.outlined
    assert outlined is not None
    pieces = _pieces(read_again(outlined), outlined)
    # The window begins at `since`; what is kept is whole from `back` on, and so many holds began before that.
    kept, since, back, before = outlined.begun, -int(NEVER), -int(NEVER), 0
    piece = next(pieces, None)
    while since < NEVER:
        fresh, size = [kept], 0
        # More than is kept: else all that is would be worked on again and again for a little that is new.
        while piece is not None and size < max(EVENTS, len(kept)):
            fresh.append(piece)
            size += len(piece)
            piece = next(pieces, None)
        kept = joined(fresh, GIL_EVENT)
        known = int(piece["time"][0]) if piece is not None else int(NEVER)
        usage = match(kept, process.threads, process.gils, process.start)
        until = _complete(usage, outlined, since, known)
        if until <= since:
            continue
        begin = usage.holds["start"]
        first = before - int(np.searchsorted(begin, back))
        yield Window(_with(process, outlined, usage), since, until, first)
        back = _explained_from(usage, until)
        before = first + int(np.searchsorted(begin, back))
        kept = joined([_last_holds(kept, process, back), kept[np.searchsorted(kept["time"], back) :]], GIL_EVENT)
        since = until


def _pieces(events: Iterator[Array], outlined: Outlined) -> Iterator[Array]:
    """The events in pieces of some size, none empty, with the numbers of stacks that the outline's table has."""
    for some in events:
        if len(outlined.collecting):
            some = renumbered(some, outlined.collecting, outlined.stacks)
        for at in range(0, len(some), EVENTS):
            yield some[at : at + EVENTS]


def _complete(usage: Usage, outlined: Outlined, since: int, known: int) -> int:
    """Until when all rows are as they are in the whole recording, if the events are there up to the time `known`."""
    if known == NEVER:
        return known
    if any(time >= known for time in outlined.headless):
        # It began before anything that is known of it.
        return since
    edges = [known]
    for rows in (usage.holds, usage.waits):
        under_way = ((rows["flags"] & np.uint8(Flag.PARTIAL_END)) != 0) & (rows["end"] >= known)
        edges.append(int(rows["start"][under_way].min(initial=known)))
    for gil, last in outlined.last_turn.items():
        # Who has it next is told with each hold.
        own = usage.holds["start"][usage.holds["gil"] == gil]
        edges += [int(own[-1])] if last >= known and len(own) else []
    return max(min(edges), since)


def _explained_from(usage: Usage, until: int) -> int:
    """When the first of the rows began that reach to the time `until`."""
    starts = (rows["start"][rows["end"] >= until].min(initial=until) for rows in (usage.holds, usage.waits))
    return int(min(starts))


def _last_holds(events: Array, process: Process, back: int) -> Array:
    """The events of the last hold before the time `back` of each thread that goes on: where it stands is told by it."""
    old = events[: np.searchsorted(events["time"], back)]
    key = old["thread"].astype(np.int64) * process.gils + old["gil"]
    last = []
    for kind in (Kind.ACQUIRE, Kind.RELEASE):
        at = np.flatnonzero(old["kind"] == kind)
        latest = np.full(len(process.threads) * process.gils, -1, np.int64)
        # Of several values for one index, numpy keeps the last.
        latest[key[at]] = at
        last.append(latest)
    taken, given = last
    goes_on = np.repeat([thread.end >= back for thread in process.threads], process.gils)
    given = np.where(given > taken, given, -1)
    chosen = np.concatenate([column[goes_on & (column >= 0)] for column in (taken, given)])
    rows: Array = old[np.sort(chosen)]
    return rows


def _with(process: Process, outlined: Outlined, usage: Usage) -> Process:
    stacks = None
    if process.stacks is not None:
        none = np.empty(0, GATHERED)
        stacks = attribute(process.stacks.table, usage, none, _NO_BLOCKS, outlined.released)
    return replace(
        process,
        holds=usage.holds,
        waits=usage.waits,
        switch_requests=usage.switch_requests,
        samples=usage.samples,
        stacks=stacks,
        blocks=_NO_BLOCKS.blocks,
        held=_NO_BLOCKS.held,
    )

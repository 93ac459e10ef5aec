"""Cut a timeline to a window of time, for figures: all that reaches out of it ends at its edges.

Sums over a part are sums of its time, and it keeps both promises of `timeline.invariants`. What is to be looked at, and
not summed, is cut by `timeline.cut`, which leaves each interval as long as it was.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from giltrace.recording.events import Spans
from giltrace.timeline import gathered
from giltrace.timeline.axis import Bools
from giltrace.timeline.cut import held_by
from giltrace.timeline.model import Array, BlockEnd, Flag, Process, Stacks, Thread, Timeline

_TABLES = ("holds", "waits", "switch_requests", "samples", "runs", "states", "stops", "blocks")


def window(timeline: Timeline, start: int, end: int) -> Timeline:
    """Keep what happened in [start, end), in ns of CLOCK_MONOTONIC.

    Holds and waits that are cut have the flags of those whose begin or end is not on record. A switch request made
    before stands if its hold goes on: it counts as made where the window begins, else code that keeps the GIL all the
    while would be nobody's doing. Losses are not known to be of a time: they stay those of the whole recording.
    """
    parts = tuple(_process(one, start, end) for one in timeline.processes if _lives(one, start, end))
    others = _clipped(timeline.other_runs[_inside(timeline.other_runs, start, end)], start, end)
    used, task = np.unique(others["thread"], return_inverse=True)
    others["thread"] = task.ravel()
    return replace(
        timeline,
        processes=parts,
        start=max(timeline.start, start),
        end=min(timeline.end, end),
        other_tasks=tuple(timeline.other_tasks[at] for at in used.tolist()),
        other_runs=others,
        merged=tuple(
            one._replace(rows=_clipped(one.rows[_inside(one.rows, start, end)], start, end)) for one in timeline.merged
        ),
    )


def _lives(one: Process | Thread, start: int, end: int) -> bool:
    """Whether it lives at an instant of the window."""
    return one.start < end and max(one.end, one.start + 1) > start


def _inside(rows: Array, start: int, end: int) -> Bools:
    """Which rows share an instant with the window; one without length is an instant."""
    first, last = (rows["time"], rows["time"]) if "time" in (rows.dtype.names or ()) else (rows["start"], rows["end"])
    inside: Bools = (first < end) & (np.maximum(last, first + 1) > start)
    return inside


def _clipped(rows: Array, start: int, end: int) -> Array:
    """A copy that ends at the window's edges. What ends there was not taken off its core."""
    rows = rows.copy()
    if "preempted" in (rows.dtype.names or ()):
        rows["preempted"][rows["end"] > end] = 0
    for edge in ("start", "end"):
        np.clip(rows[edge], start, end, out=rows[edge])
    return rows


def _process(process: Process, start: int, end: int) -> Process:
    kept = {table: _inside(getattr(process, table), start, end) for table in _TABLES}
    standing = _standing(process, start)
    kept["switch_requests"] |= standing
    rows = {table: getattr(process, table)[kept[table]] for table in _TABLES}
    for table in ("holds", "waits"):
        rows[table] = _marked(rows[table], start, end)
    rows["blocks"] = _open(rows["blocks"], start, end)
    for table in ("runs", "states", "stops", "blocks"):
        rows[table] = _clipped(rows[table], start, end)
    # One that was made where the window begins is one that its hold has not heeded yet.
    rows["switch_requests"]["time"] = np.maximum(rows["switch_requests"]["time"], start + 1)
    number = np.append(np.where(kept["holds"], np.cumsum(kept["holds"]) - 1, -1), -1)
    rows["waits"]["hold"] = number[rows["waits"]["hold"]]

    lives = np.array([_lives(thread, start, end) for thread in process.threads], np.bool_)
    for table in _TABLES:
        lives[rows[table]["thread"]] = True
    lives[rows["blocks"]["waker"][rows["blocks"]["waker"] >= 0]] = True
    place = (np.cumsum(lives) - 1).astype(np.uint32)
    for table in _TABLES:
        rows[table]["thread"] = place[rows[table]["thread"]]
    waker = rows["blocks"]["waker"]
    rows["blocks"]["waker"] = np.where(waker >= 0, place.astype(np.int32)[waker], -1)
    threads = [process.threads[at] for at in np.flatnonzero(lives).tolist()]
    first, last = max(process.start, start), min(process.end, end)
    return replace(
        process,
        start=first,
        end=last,
        threads=tuple(
            one._replace(start=min(max(one.start, start), end), end=max(min(one.end, end), start)) for one in threads
        ),
        spans=tuple(_spans(spans, start, end) for spans in process.spans),
        stacks=None if process.stacks is None else _stacks(process.stacks, kept),
        switch_intervals=process.switch_intervals[process.switch_intervals["start"] < end],
        overwritten=process.overwritten if first == process.start else 0,
        became=process.became if last == process.end else "",
        # What giltrace did on its way in and out did not happen between.
        left=process.left and (first == process.start or last == process.end),
        chosen=None if process.chosen is None else process.chosen[lives],
        end_of=process.end_of if last == process.end else "window",
        gathered=gathered.kept(process, np.flatnonzero(kept["holds"])),
        # When the hand-offs between quiet holds took place is not known.
        passed=process.passed if (first, last) == (process.start, process.end) else process.passed[:0],
        held=held_by(process.held, kept["blocks"]),
        **rows,
    )


def _marked(rows: Array, start: int, end: int) -> Array:
    """Holds or waits cut at the window's edges, and flagged there: who released them, and why, comes later."""
    begun, goes_on = rows["start"] < start, rows["end"] > end
    rows = _clipped(rows, start, end)
    rows["flags"][begun] |= np.uint8(Flag.PARTIAL_START)
    rows["flags"][goes_on] = (rows["flags"][goes_on] & ~np.uint8(Flag.FORCED)) | np.uint8(Flag.PARTIAL_END)
    return rows


def _open(blocks: Array, start: int, end: int) -> Array:
    """A copy of the blocks in which those that outlast the window have not ended: who woke them comes later.

    Who was woken before it is about to run where it begins.
    """
    blocks = blocks.copy()
    goes_on = blocks["end"] > end
    blocks["ended"][goes_on], blocks["waker"][goes_on], blocks["owned"][goes_on] = BlockEnd.OPEN, -1, 0
    blocks["woken"] = np.where(goes_on, end, np.maximum(blocks["woken"], start))
    return blocks


def _standing(process: Process, start: int) -> Bools:
    """The switch requests that the holders at `start` had not heeded: of each thread that asked, the first."""
    requests = process.switch_requests
    standing = np.zeros(len(requests), np.bool_)
    over = process.holds[(process.holds["start"] < start) & (process.holds["end"] > start)]
    for gil in np.unique(over["gil"]).tolist():
        since = int(over["start"][over["gil"] == gil].min())
        asked = (requests["gil"] == gil) & (requests["time"] > since) & (requests["time"] < start)
        mine = np.flatnonzero(asked)
        standing[mine[np.unique(requests["thread"][mine], return_index=True)[1]]] = True
    return standing


def _stacks(stacks: Stacks, kept: dict[str, npt.NDArray[np.bool_]]) -> Stacks:
    return replace(
        stacks,
        hold_begin=stacks.hold_begin[kept["holds"]],
        hold_end=stacks.hold_end[kept["holds"]],
        wait=stacks.wait[kept["waits"]],
        request=stacks.request[kept["switch_requests"]],
        sample=stacks.sample[kept["samples"]],
        block=stacks.block[kept["blocks"]],
        wake=stacks.wake[kept["blocks"]],
    )


def _spans(spans: Spans, start: int, end: int) -> Spans:
    return spans._replace(spans=_clipped(spans.spans[_inside(spans.spans, start, end)], start, end))

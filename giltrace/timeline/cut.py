"""Cut a timeline to stretches of time: what a browser can hold of a recording that is too long for it.

Whatever reaches into a stretch is kept whole, so that every length is the recorded one; the rest is left out, and the
timeline says so (`Timeline.cut`). It is meant to be looked at and exported: sums over it are sums over what is left.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from giltrace.timeline import gathered
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.model import Array, Cut, Process, Stacks, Timeline

#: Rows that are looked at at a time.
_PIECE = 1 << 18


def cut(timeline: Timeline, stretches: Sequence[tuple[int, int]], room: Ints | None = None) -> Timeline:
    """Keep what happened in `stretches`, [start, end) in ns of CLOCK_MONOTONIC; they may overlap, in any order.

    A wait is kept with the holds and the switch requests that explain it, those before the stretch too. Those that are
    not `inside` the `room` that there is, sorted and disjoint stretches, are kept without. Cutting what was cut already
    keeps what both kept, and counts what both left out.
    """
    kept = merged_stretches(np.array(stretches, np.int64).reshape(-1, 2), *timeline.recorded)
    parts = [_process(process, kept, room) for process in timeline.processes]
    others = reaching(timeline.other_runs["start"], timeline.other_runs["end"], kept)
    merged = tuple(
        one._replace(rows=one.rows[reaching(one.rows["start"], one.rows["end"], kept)]) for one in timeline.merged
    )
    gone = sum(len(one.rows) for one in timeline.merged) - sum(len(one.rows) for one in merged)
    before = timeline.cut or Cut((), timeline.recorded)
    return replace(
        timeline,
        processes=tuple(parts),
        other_runs=timeline.other_runs[others],
        cut=Cut(
            kept=tuple((start, end) for start, end in kept.tolist()),
            recorded=before.recorded,
            holds=before.holds + gathered.number(timeline.processes) - gathered.number(parts),
            waits=before.waits + _lost(timeline.processes, parts, "waits"),
            runs=before.runs + _lost(timeline.processes, parts, "runs") + int((~others).sum()),
            spans=before.spans + _spans(timeline.processes) - _spans(parts) + gone,
        ),
        merged=merged,
    )


def _lost(whole: Sequence[Process], left: Sequence[Process], table: str) -> int:
    return sum(len(getattr(process, table)) for process in whole) - sum(len(getattr(each, table)) for each in left)


def _spans(processes: Sequence[Process]) -> int:
    return sum(len(spans.spans) for process in processes for spans in process.spans)


def _process(process: Process, kept: Ints, room: Ints | None) -> Process:
    holds, waits, requests = process.holds, process.waits, process.switch_requests
    waiting = reaching(waits["start"], waits["end"], kept)
    explained = waits[waiting]
    if room is not None:
        explained = explained[inside(explained["start"], explained["end"], room)]
    # A wait ends where its hold begins: one ns more reaches it.
    around = merged_stretches(np.concatenate((kept, _pairs(explained["start"], explained["end"] + 1))))
    holding = reaching(holds["start"], holds["end"], around)
    # A hold's first switch request says where it stood, however long before the stretch it was made.
    asked = merged_stretches(np.concatenate((around, _pairs(holds["start"][holding], holds["end"][holding] + 1))))
    asking = reaching(requests["time"], requests["time"], asked)
    looking = reaching(process.samples["time"], process.samples["time"], asked)
    blocking = reaching(process.blocks["start"], process.blocks["end"], kept)
    left = waits[waiting].copy()
    left["hold"] = _numbered(left["hold"], np.flatnonzero(holding))
    return replace(
        process,
        holds=holds[holding],
        waits=left,
        switch_requests=requests[asking],
        samples=process.samples[looking],
        runs=process.runs[reaching(process.runs["start"], process.runs["end"], kept)],
        states=process.states[reaching(process.states["start"], process.states["end"], kept)],
        spans=tuple(
            one._replace(spans=one.spans[reaching(one.spans["start"], one.spans["end"], kept)]) for one in process.spans
        ),
        stacks=None if process.stacks is None else _stacks(process.stacks, holding, waiting, asking, looking, blocking),
        gathered=gathered.kept(process, np.flatnonzero(holding)),
        blocks=process.blocks[blocking],
        held=held_by(process.held, blocking),
    )


def _stacks(stacks: Stacks, holding: Bools, waiting: Bools, asking: Bools, looking: Bools, blocking: Bools) -> Stacks:
    return replace(
        stacks,
        hold_begin=stacks.hold_begin[holding],
        hold_end=stacks.hold_end[holding],
        wait=stacks.wait[waiting],
        request=stacks.request[asking],
        sample=stacks.sample[looking],
        block=stacks.block[blocking],
        wake=stacks.wake[blocking],
    )


def held_by(held: Array, kept: Bools) -> Array:
    """What is `held` (dtype `HELD_LOCK`) by those of the blocks that are kept, with their new numbers."""
    rows: Array = held[kept[held["block"]]]
    rows["block"] = (np.cumsum(kept) - 1)[rows["block"]]
    return rows


def _numbered(rows: npt.NDArray[np.int64], kept: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The places of `rows` among those `kept`, -1 where there is none."""
    if not len(kept):
        return np.full(len(rows), -1, np.int64)
    place = np.searchsorted(kept, rows)
    return np.where(kept[np.minimum(place, len(kept) - 1)] == rows, place, -1)


def _pairs(start: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> Ints:
    return np.stack((start, end), axis=1)


def inside(start: npt.NDArray[np.int64], end: npt.NDArray[np.int64], room: Ints) -> Bools:
    """Whether each interval lies in one of the stretches of `room`, sorted and disjoint, shape (n, 2)."""
    if not len(room):
        return np.zeros(len(start), np.bool_)
    at = np.searchsorted(room[:, 0], start, "right") - 1
    within: Bools = (at >= 0) & (end <= room[np.maximum(at, 0), 1])
    return within


def merged_stretches(pairs: Ints, lowest: int | None = None, highest: int | None = None) -> Ints:
    """Sorted, disjoint stretches that cover the same; shape (n, 2). Empty ones are dropped, bounds are optional."""
    pairs = np.clip(pairs, lowest, highest) if lowest is not None or highest is not None else pairs
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    if not len(pairs):
        return pairs
    reach = np.maximum.accumulate(pairs[:, 1])
    fresh = np.flatnonzero(np.append(True, pairs[1:, 0] > reach[:-1]))
    return _pairs(pairs[fresh, 0], reach[np.append(fresh[1:], len(pairs)) - 1])


def reaching(start: npt.NDArray[np.int64], end: npt.NDArray[np.int64], kept: Ints) -> Bools:
    """Whether each interval shares an instant with one of the stretches; one without length is an instant."""
    found = np.zeros(len(start), np.bool_)
    begins = np.append(kept[:, 0], np.iinfo(np.int64).max)
    for at in range(0, len(start) if len(kept) else 0, _PIECE):
        piece = slice(at, at + _PIECE)
        begin = begins[np.searchsorted(kept[:, 1], start[piece], "right")]
        found[piece] = begin < np.maximum(end[piece], start[piece] + 1)
    return found

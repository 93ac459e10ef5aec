"""A trace that a browser can hold: all events where threads lost most, and what threads did in steps elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from giltrace.analysis.durations import percent
from giltrace.exporters.perfetto.choosing import Bins, Choice
from giltrace.exporters.perfetto.coarse import Coarse, met_tracks
from giltrace.exporters.perfetto.size import at_least, at_most
from giltrace.exporters.perfetto.steps import Grid
from giltrace.exporters.perfetto.thinned import Steps
from giltrace.text import plural
from giltrace.timeline.cut import cut, inside
from giltrace.timeline.gathered import as_they_are
from giltrace.timeline.model import Process, Timeline

#: What the Perfetto UI opens in ten to twenty seconds.
LIMIT = 100_000_000
#: What to do about it, after what was thinned.
OR_A_PART = "writes everything, --window A..B a part"
REMEDY = f"giltrace export --to perfetto --all {OR_A_PART}"

#: What a trace is where holds were gathered, and nothing else is left out.
QUIET = "quiet ones in a row as one"

#: No step is shorter, and there are no more cells (threads times steps).
_FINEST, _CELLS = 1_000_000, 1 << 20
#: The part of the limit that steps may take, and the bytes that a slice and a value of a counter take.
_FOR_STEPS, _SLICE, _VALUE = 0.3, 130, 40
#: How often the choice is tried, and what part of the limit is good enough.
_TRIES, _ENOUGH = 5, 0.8


class Thinned(NamedTuple):
    """What to write: the events of `timeline`, which is cut, beside the steps of each process; `told` says so."""

    timeline: Timeline
    steps: tuple[Steps, ...]
    step: int
    told: str


def thin(
    timeline: Timeline,
    limit: int,
    size: Callable[[Timeline, Thinned | None, int], int],
    first: Sequence[tuple[int, int]] = (),
) -> Thinned | None:
    """Thin what would be larger than `limit` bytes, the stretches `first` last of all; None if it is not.

    `size` tells how large the trace of a timeline gets, or of what is left of it; a size above the number that it is
    given need not be right. Where there is more to tell than there is room even without any event, it is as small as
    it can be.
    """
    if at_most(timeline) <= limit or (at_least(timeline) <= limit and size(timeline, None, limit) <= limit):
        return None
    coarse = _coarse(timeline, int(_FOR_STEPS * limit))
    bins = Bins.of(timeline)
    nothing = Choice([], np.empty((0, 2), np.int64))
    base = size(timeline, _made(timeline, coarse, nothing), limit)
    best, budget, fits, exceeds = nothing, limit - base, 0, 0
    for _ in range(_TRIES):
        choice = bins.choose(budget, first)
        taken = size(timeline, _made(timeline, coarse, choice), 4 * limit)
        if taken <= limit:
            best, fits = choice, budget
        else:
            exceeds = budget
        if _ENOUGH * limit <= taken <= limit:
            break
        # In proportion to what the last one took, but between what is known to fit and not to.
        budget = int(budget * max(0.93 * limit - base, 0) / max(taken - base, 1))
        if exceeds and not fits < budget < exceeds:
            budget = (fits + exceeds) // 2
    while best is nothing and coarse and coarse[0].grid.count > 1 and base > limit:
        coarse = [one.doubled() for one in coarse]
        base = size(timeline, _made(timeline, coarse, nothing), limit)
    return _made(timeline, coarse, best)


def _coarse(timeline: Timeline, most: int) -> list[Coarse]:
    """What all threads did, in steps as fine as there is room for."""
    first, last = timeline.recorded
    tracks = sum(int(met_tracks(process).sum()) for process in timeline.processes)
    grid = Grid.over(first, last, _FINEST)
    while grid.count * tracks > _CELLS and grid.count > 1:
        grid = grid.doubled()
    coarse = [Coarse.of(process, grid) for process in timeline.processes]
    while _size(timeline, coarse) > most and grid.count > 1:
        grid = grid.doubled()
        coarse = [one.doubled() for one in coarse]
    return coarse


def _size(timeline: Timeline, coarse: list[Coarse]) -> int:
    """About how large steps are."""
    slices = sum(len(one.merged(timeline.recorded[1]).track) for one in coarse)
    gils = sum(len(one.held) for one in coarse)
    return _SLICE * slices + gils * coarse[0].grid.count * (2 * _VALUE + _SLICE) if coarse else 0


def _made(timeline: Timeline, coarse: list[Coarse], choice: Choice) -> Thinned:
    left = _without_idle(cut(timeline, choice.kept, choice.room))
    assert left.cut is not None
    kept = np.array(left.cut.kept, np.int64).reshape(-1, 2)
    step = coarse[0].grid.step if coarse else _FINEST
    told = _told(timeline, left, coarse, step)
    steps = tuple(
        Steps(whole.without(process), kept, left.cut.recorded, _explained(process, choice), told)
        for whole, process in zip(coarse, left.processes, strict=True)
    )
    return Thinned(left, steps, step, told)


def _without_idle(timeline: Timeline) -> Timeline:
    """Without the names of other programs' threads of which nothing is left."""
    used, task = np.unique(timeline.other_runs["thread"], return_inverse=True)
    runs = timeline.other_runs.copy()
    runs["thread"] = task.ravel()
    return replace(timeline, other_tasks=tuple(timeline.other_tasks[at] for at in used.tolist()), other_runs=runs)


def _explained(process: Process, choice: Choice) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    waits = process.waits
    return inside(waits["start"], waits["end"], choice.room)


def _told(whole: Timeline, left: Timeline, coarse: list[Coarse], step: int) -> str:
    (holds, _), (_, of) = as_they_are(left), as_they_are(whole)
    waited = sum(int((one.waits["end"] - one.waits["start"]).sum()) for one in left.processes)
    lost = sum(int(one.waited.sum()) for one in coarse)
    number = 0 if left.cut is None else len(left.cut.kept)
    where = f", in {plural(number, 'stretch', 'stretches')}" if number else ""
    where += (
        f" that {'has' if number == 1 else 'have'} {percent(waited / lost)} of the waiting" if number and lost else ""
    )
    return f"trace thinned: {holds:,} of {of:,} holds as they are{where}; elsewhere in steps of {step_text(step)}"


def told_of_gathered(timeline: Timeline) -> str:
    """What a trace of all rows of `timeline` leaves out, in words; empty if that is nothing."""
    holds, of = as_they_are(timeline)
    return "" if holds == of else f"trace thinned: {holds:,} of {of:,} holds as they are; elsewhere {QUIET}"


def step_text(step: int) -> str:
    """The length of steps, in words."""
    return f"{step / 1e6:g} ms" if step < 1_000_000_000 else f"{step / 1e9:g} s"

"""A program whose character changes: its phases, with a verdict each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from giltrace.analysis.finding_results import Phase
from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.measure.at_once import levels
from giltrace.analysis.measure.intervals import covered
from giltrace.timeline.axis import NEVER, Ints, union
from giltrace.timeline.model import Array, Process, State, Timeline
from giltrace.timeline.part import window

#: The process's time is looked at in so many pieces, three in the shortest phase ...
PIECES = 64
#: ... none shorter than this: four turns of a switch interval.
SHORTEST_NS = 20_000_000
#: Neighbours are one phase if they differ by less than this, in shares of time that are summed: pieces of one character
#: differ by 0.1 to 0.2.
DIFFERENT = 0.3
#: A phase lasts for this share of the time at least: less does not change what is said of the whole.
LEAST_SHARE = 0.05
#: What goes to and fro more often than this is of one character: that.
MOST_PHASES = 4
#: So many rows are looked at at a time.
_PIECE = 1 << 19

Floats = npt.NDArray[np.float64]


def find_phases(process: Process, timeline: Timeline) -> tuple[Phase, ...]:
    """Cut a process where its character changes; empty if it has one verdict all the time, or goes to and fro."""
    wall = process.end - process.start
    pieces = min(PIECES, wall // SHORTEST_NS)
    if pieces < 2 or len(process.holds) == 0:
        return ()
    edges = process.start + np.linspace(0, wall, pieces + 1).astype(np.int64)
    between = cuts(_character(process, edges))
    if len(between) == 2:
        return ()
    found: list[Phase] = []
    for low, high in pairwise(between):
        start, end = int(edges[low]), int(edges[high])
        (part,) = window(_alone(process, timeline), start, end).processes
        verdict = judge(part, Costed(part, timeline.began_ns))
        begin = start - process.start
        if found and found[-1].verdict.kind == verdict.kind:
            # The same answer twice: judged anew as one.
            begin = found.pop().start_ns
            (part,) = window(_alone(process, timeline), process.start + begin, end).processes
            verdict = judge(part, Costed(part, timeline.began_ns))
        found.append(Phase(begin, end - process.start, verdict))
    return tuple(found) if 1 < len(found) <= MOST_PHASES else ()


def _alone(process: Process, timeline: Timeline) -> Timeline:
    return replace(timeline, processes=(process,), other_runs=timeline.other_runs[:0], other_tasks=())


def _character(process: Process, edges: Ints) -> Floats:
    """Per piece: the share of it that a GIL was held, that somebody waited, and that threads ran off the GIL."""
    nothing = np.zeros(len(edges), np.int64)
    spent = [sum((covered(*some, edges) for some in busy), nothing) for busy in _busy(process)]
    return np.stack([np.diff(until) / np.diff(edges) for until in spent], axis=1)


def _busy(process: Process) -> Iterator[Iterator[tuple[Ints, Ints]]]:
    """When a GIL was held, when somebody waited, and when threads ran off the GIL, as disjoint intervals, in pieces."""
    yield _union(process.holds)
    yield _union(process.waits)
    yield (
        (time[:-1][running > 0], time[1:][running > 0])
        for time, (running,) in levels(process.states, ((State.OFF_RUNNING,),))
    )


def _union(rows: Array) -> Iterator[tuple[Ints, Ints]]:
    """What rows cover that are sorted by start."""
    reach = int(rows["start"].min(initial=NEVER))
    for at in range(0, len(rows), _PIECE):
        piece = rows[at : at + _PIECE]
        start = np.maximum(piece["start"], reach)
        end = np.maximum(piece["end"], start)
        yield union(start, end)
        reach = max(reach, int(end.max()))


def cuts(character: Floats) -> list[int]:
    """Join the neighbours that differ least until all that are left differ, or last long enough: where to cut."""
    size = [1] * len(character)
    mean = list(character)
    least = LEAST_SHARE * len(character)
    while len(size) > 1:
        apart = np.array([np.abs(one - other).sum() for one, other in pairwise(mean)])
        # What is too short goes to the neighbour that it is more like.
        brief = np.array([min(one, other) < least for one, other in pairwise(size)])
        at = int(np.where(brief, apart - len(character), apart).argmin())
        if not brief[at] and apart[at] >= DIFFERENT:
            break
        both = size[at] + size[at + 1]
        mean[at] = (mean[at] * size[at] + mean[at + 1] * size[at + 1]) / both
        size[at] = both
        del mean[at + 1], size[at + 1]
    return [0, *np.cumsum(size).tolist()]

"""Before and after: what two recordings of the same program say differently, per role of threads and per culprit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.compare import noise
from giltrace.analysis.compare.headline import FindingChange, finding_changes, headline
from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.stretches import cut_process, stretches
from giltrace.text import role_name
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Array, Process, Thread, Timeline

#: The version of `giltrace compare --json`: fields are added under it, never renamed or removed.
SCHEMA = "giltrace-compare-1"
#: Bins are this long; shorter where a role would have fewer than `BINS`, but never below `SHORTEST_BIN_NS`.
BIN_NS = 100_000_000
SHORTEST_BIN_NS = 20_000_000
BINS = 20
#: Smaller changes than these are no changes: shares in parts of 1, lengths and rates relative to the smaller one.
LEAST_SHARE = 0.02
LEAST_FACTOR = 0.10
#: A program that takes so many times as long is worse; how much one run differs from the next is not known.
LONGER = 1.5
#: So many culprits are compared, the costliest in either recording.
TOP_CULPRITS = 20

Unit = Literal["ns", "share", "per_s"]


@dataclass(frozen=True)
class Figure:
    """One figure `before` and `after` (None where there is none) and what became of it.

    `change` is "higher", "lower", "same" (no change beyond noise) or "unknown" (too little data to tell). `low` and
    `high` bound the change: a difference for shares, a factor for the others; None if unknown.
    """

    name: str
    unit: Unit
    before: float | None
    after: float | None
    change: noise.Change
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class RoleChange:
    """All threads whose names differ in their numbers only, in all processes; `threads_*` is how many there were.

    The figures: `held_share` and `waited_share` of their life, `waits_per_s` of it, `wait_p50_ns`, `wait_p99_ns`.
    """

    role: str
    threads_before: int
    threads_after: int
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class CulpritChange:
    """Holds by threads of one role in one function: of the user's, or a library's where none of these is on the stack.

    Lines are left out: they move when code changes.

    The figure is `cost_share`: time that others waited during these holds, per time recorded; above 1 if several did.
    """

    thread: str
    function: str
    file: str
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Side:
    """One of the two recordings: `verdicts` of its processes that used a GIL, the one that held it longest first.

    `part` says in words which part of it is compared, empty for all of it.
    """

    duration_ns: int
    verdicts: tuple[str, ...]
    lost_events: int
    lost_stacks: int
    part: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Two recordings side by side; what was costliest comes first.

    `lost` is the time that threads waited for the GIL, per time recorded; above 1 if several did at once.
    `times_as_long` is how much longer the second took, None unless both are of a program from its start to its end.
    """

    schema: str
    before: Side
    after: Side
    roles: tuple[RoleChange, ...]
    culprits: tuple[CulpritChange, ...]
    lost: Figure
    findings: tuple[FindingChange, ...]
    times_as_long: float | None

    @property
    def changed(self) -> bool:
        """Whether any figure changed beyond noise, or a role is in one of the recordings only."""
        if any((role.threads_before == 0) != (role.threads_after == 0) for role in self.roles):
            return True
        parts = [part.figures for part in self.roles] + [part.figures for part in self.culprits]
        return any(figure.change in ("higher", "lower") for figures in parts for figure in figures)

    @property
    def worse(self) -> bool:
        """Whether more is lost to the GIL beyond noise, in all or by a role, or the program takes `LONGER`.

        A role that waits more does not count where less is lost in all.
        """
        if self.lost.change == "higher" or (self.times_as_long or 0) >= LONGER:
            return True
        waited = (figure for role in self.roles for figure in role.figures if figure.name == "waited_share")
        return self.lost.change != "lower" and any(figure.change == "higher" for figure in waited)

    @property
    def headline(self) -> str:
        """The comparison in one line."""
        lost = (self.lost.before or 0.0, self.lost.after or 0.0, self.lost.change)
        return headline(self.times_as_long, lost, self.findings, changed=self.changed)


def role_of(name: str) -> str:
    """The role that a thread has in both recordings: its name with all numbers replaced by ``*``."""
    return role_name(name) or "(unnamed)"


def compare(before: Timeline, after: Timeline) -> Comparison:
    """Compare two timelines; `giltrace.analysis.compare.noise` says what is a change and what is noise."""
    old, new = _roles(before), _roles(after)
    names = sorted({*old, *new}, key=lambda name: -max(_weight(side.get(name)) for side in (old, new)))
    return Comparison(
        schema=SCHEMA,
        before=_side(before),
        after=_side(after),
        roles=tuple(
            RoleChange(name, _threads(a), _threads(b), tuple(_figures(a, b)))
            for name, a, b in ((name, old.get(name), new.get(name)) for name in names)
        ),
        culprits=_culprits(before, after),
        lost=_figure("lost_share", "share", *map(_lost, (before, after))),
        findings=finding_changes(before, after),
        times_as_long=_times_as_long(before, after),
    )


def _lost(timeline: Timeline) -> noise.Ratio:
    """What the chosen threads waited, per time."""
    edges = _edges(timeline.start, timeline.end)
    waits = [process.waits[process.of_chosen(process.waits)] for process in timeline.processes]
    waited = sum((_binned(rows, edges) for rows in waits), np.zeros(len(edges) - 1, np.int64))
    return noise.Ratio(waited, np.diff(edges))


def _times_as_long(before: Timeline, after: Timeline) -> float | None:
    if any(one.part or one.unfinished or not one.whole_run or one.end <= one.start for one in (before, after)):
        return None
    return (after.end - after.start) / (before.end - before.start)


def _side(timeline: Timeline) -> Side:
    used = sorted((p for p in timeline.processes if len(p.holds)), key=lambda p: -int(usage.lengths(p.holds).sum()))
    verdicts = tuple(judge(p, Costed(p, timeline.began_ns)).kind for p in used or timeline.processes)
    return Side(timeline.end - timeline.start, verdicts, timeline.lost, timeline.lost_stacks, timeline.part)


class _Role(NamedTuple):
    """What the threads of a role did per bin: `life`, `held` and `waited` ns; and each wait's `length` and bin `at`."""

    threads: int
    life: Ints
    held: Ints
    waited: Ints
    length: Ints
    at: Ints


def _roles(timeline: Timeline) -> dict[str, _Role]:
    members: dict[str, list[tuple[int, list[int]]]] = {}
    for number, process in enumerate(timeline.processes):
        own: dict[str, list[int]] = {}
        for index in process.chosen_threads:
            own.setdefault(role_of(process.threads[index].name), []).append(index)
        for name, indices in own.items():
            members.setdefault(name, []).append((number, indices))
    return {name: _role(timeline, parts) for name, parts in members.items()}


def _role(timeline: Timeline, parts: Sequence[tuple[int, list[int]]]) -> _Role:
    threads = [timeline.processes[number].threads[index] for number, indices in parts for index in indices]
    holds, waits = _of_threads(timeline, parts, "holds"), _of_threads(timeline, parts, "waits")
    edges = _edges(min(t.start for t in threads), max(t.end for t in threads))
    at = np.clip(np.searchsorted(edges, waits["start"], "right") - 1, 0, len(edges) - 2)
    life, held, waited = _life(threads, edges), _binned(holds, edges), _binned(waits, edges)
    return _Role(len(threads), life, held, waited, usage.lengths(waits), at)


def _of_threads(timeline: Timeline, parts: Sequence[tuple[int, list[int]]], table: str) -> Array:
    chosen = []
    for number, indices in parts:
        process = timeline.processes[number]
        mask = np.zeros(len(process.threads), np.bool_)
        mask[indices] = True
        rows = getattr(process, table)
        chosen.append(rows[mask[rows["thread"]]])
    return np.concatenate(chosen)


def _edges(start: int, end: int) -> Ints:
    """Bins that cover start to end, the last one at most half as long again as the others."""
    width = min(BIN_NS, max((end - start) // BINS, SHORTEST_BIN_NS))
    edges = start + width * np.arange(max((end - start) // width, 1) + 1, dtype=np.int64)
    edges[-1] = max(end, start + 1)
    return edges


def _life(threads: Sequence[Thread], edges: Ints) -> Ints:
    born, ended = (np.array(times, np.int64) for times in ([t.start for t in threads], [t.end for t in threads]))
    return np.diff(_before(born, ended, edges))


def _binned(rows: Array, edges: Ints) -> Ints:
    """How much of the rows falls into each bin."""
    return np.diff(_before(rows["start"], rows["end"], edges))


def _before(start: npt.NDArray[Any], end: npt.NDArray[Any], time: Ints) -> Ints:
    """Total length of the intervals before each instant, those that overlap counted each."""

    def passed(points: npt.NDArray[Any]) -> Ints:
        points = np.sort(points)
        count = np.searchsorted(points, time, "right")
        # Sums wrap around; their difference is right all the same, as arithmetic is modulo 2**64.
        total: Ints = count * time - np.append(0, np.cumsum(points))[count]
        return total

    return passed(start) - passed(end)


def _weight(role: _Role | None) -> int:
    return 0 if role is None else int(role.waited.sum() + role.held.sum())


def _threads(role: _Role | None) -> int:
    return 0 if role is None else role.threads


def _figures(old: _Role | None, new: _Role | None) -> Iterator[Figure]:
    def ratio(part: str, scale: int = 1) -> list[noise.Ratio | None]:
        return [None if r is None else noise.Ratio(_part(r, part) * scale, r.life) for r in (old, new)]

    def quantile(q: float) -> list[noise.Quantile | None]:
        return [None if r is None or not len(r.length) else noise.Quantile(r.length, r.at, q) for r in (old, new)]

    yield _figure("held_share", "share", *ratio("held"))
    yield _figure("waited_share", "share", *ratio("waited"))
    yield _figure("waits_per_s", "per_s", *ratio("waits", 1_000_000_000))
    yield _figure("wait_p50_ns", "ns", *quantile(0.5))
    yield _figure("wait_p99_ns", "ns", *quantile(0.99))


def _part(role: _Role, name: str) -> Ints:
    if name == "waits":
        return np.bincount(role.at, minlength=len(role.life))
    part: Ints = role.held if name == "held" else role.waited
    return part


def _figure(
    name: str, unit: Unit, old: noise.Ratio | noise.Quantile | None, new: noise.Ratio | noise.Quantile | None
) -> Figure:
    before, after = (None if one is None else one.estimate() for one in (old, new))
    if before is None or after is None:
        return Figure(name, unit, before and before.value, after and after.value, "unknown")
    factor = unit != "share"
    found = noise.compare(before, after, at_least=LEAST_FACTOR if factor else LEAST_SHARE, factor=factor)
    low, high = (bound if isfinite(bound) else None for bound in (found.low, found.high))
    return Figure(name, unit, before.value, after.value, found.change, low, high)


_Key = tuple[str, str, str]


def _culprits(before: Timeline, after: Timeline) -> tuple[CulpritChange, ...]:
    sides = [_Costs(timeline) for timeline in (before, after)]
    keys = {*sides[0].total, *sides[1].total}
    worth = {key: max(side.total.get(key, 0) / max(side.wall, 1) for side in sides) for key in keys}
    top = sorted((key for key in keys if worth[key] > 0), key=lambda key: (-worth[key], key))[:TOP_CULPRITS]
    figures = [_figure("cost_share", "share", *(side.ratio(key) for side in sides)) for key in top]
    return tuple(CulpritChange(*key, (figure,)) for key, figure in zip(top, figures, strict=True))


class _Costs:
    """What the holds of each culprit cost all chosen waiters: in `total`, and cut at the edges of bins."""

    def __init__(self, timeline: Timeline) -> None:
        self.wall = timeline.end - timeline.start
        self.edges = _edges(timeline.start, timeline.end)
        self.number: dict[_Key, int] = {}
        parts = [self._pieces(process) for process in timeline.processes if len(process.waits) and len(process.holds)]
        nothing = np.empty(0, np.int64)
        self._culprit, self._bin, self._cost = (
            np.concatenate(column) for column in (zip(*parts, strict=True) if parts else ((nothing,),) * 3)
        )
        # bincount adds in float64: exact up to 2**53 ns, which is 104 days.
        sums = np.bincount(self._culprit, self._cost, len(self.number))
        self.total = {key: float(sums[at]) for key, at in self.number.items()}

    def ratio(self, key: _Key) -> noise.Ratio:
        mine = self._culprit == self.number.get(key, -1)
        return noise.Ratio(
            np.bincount(self._bin[mine], self._cost[mine], len(self.edges) - 1), np.diff(self.edges).astype(np.float64)
        )

    def _pieces(self, process: Process) -> tuple[Ints, Ints, Ints]:
        """Culprit, bin and cost of each hold, one that spans several bins cut at their edges."""
        held = stretches(process)
        process = cut_process(process)
        culprit = self._culprits_of(process, held.stack)
        out = []
        for gil in range(process.gils):
            mine = np.flatnonzero(process.holds["gil"] == gil)
            waits = usage.of_gil(process.waits[process.of_chosen(process.waits)], gil)
            start, end = process.holds["start"][mine], process.holds["end"][mine]
            first = np.searchsorted(self.edges[1:-1], start, "right")
            last = np.searchsorted(self.edges[1:-1], end, "left")
            counts = np.maximum(last - first, 0) + 1
            row = np.repeat(np.arange(len(mine)), counts)
            into = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts)
            bins = first[row] + into
            low = np.where(into > 0, self.edges[bins], start[row])
            high = np.where(into < counts[row] - 1, self.edges[bins + 1], end[row])
            cost = _before(waits["start"], waits["end"], high) - _before(waits["start"], waits["end"], low)
            some = cost > 0
            out.append((culprit[mine[row[some]]], bins[some], cost[some]))
        columns = tuple(np.concatenate(column) for column in zip(*out, strict=True))
        return columns[0], columns[1], columns[2]

    def _culprits_of(self, process: Process, stack: npt.NDArray[np.int32]) -> Ints:
        sites = Sites(process)
        classes = sites.functions(sites.classify(process.holds["thread"], stack))
        keys = [(role_of(s.thread), s.function, PurePath(s.file).name) for s in classes.sites]
        numbers = [self.number.setdefault(key, len(self.number)) for key in keys]
        culprits: Ints = np.array(numbers, np.int64)[classes.of_row]
        return culprits

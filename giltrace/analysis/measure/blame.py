"""Who waited for whom: the line where threads waited against the line that held the GIL meanwhile."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

from giltrace.analysis.finding_results import BlameTotal
from giltrace.analysis.measure.attribution import (
    LongestOverlap,
    Shares,
    attribute,
    attribute_in_parts,
    joined,
    largest,
    merged,
)
from giltrace.analysis.measure.sites import Classes, Sites, function_of
from giltrace.analysis.measure.stretches import Source, cut_process, stretches
from giltrace.analysis.results import Blame, FunctionBlame, LineBlame
from giltrace.analysis.site import Site
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process

#: So many pairs and sites are told, the largest ones.
MOST_ROWS = 1000


class BlameTables(NamedTuple):
    """Blame by pair of lines and of functions, and each of its sides: what `victims` lost in all, what `culprits` cost.

    How far the culprits' lines can be trusted: `samples` of what holders did stand behind `sampled_ns` of the time that
    was lost to them; for the rest it is only known where the GIL was given up.
    """

    pairs: tuple[Blame, ...]
    victims: tuple[BlameTotal, ...]
    culprits: tuple[BlameTotal, ...]
    functions: tuple[FunctionBlame, ...] = ()
    samples: int = 0
    sampled_ns: int = 0


def find_blame(process: Process) -> BlameTables:
    """Attribute the chosen threads' waits to the holds that overlap them; largest first, `MOST_ROWS` of each at most.

    Time in which nobody held the GIL is nobody's: it is the wake-up time of the decomposition.
    """
    sites = Sites(process)
    wait_stack, held = sites.wait_stacks(), stretches(process)
    hold_stack = held.stack
    victim = sites.classify(process.waits["thread"], wait_stack)
    culprit = sites.classify(held.holds["thread"], hold_stack)
    process = cut_process(process)
    longest = LongestOverlap(process, culprit.of_row)
    pairs, totals = _attribute(process, victim.of_row, culprit.of_row, len(culprit.sites))
    told = process.of_chosen(process.waits)
    anyone = attribute(process, victim.of_row, np.zeros(len(held.of), np.int64), told)
    anyone = largest(anyone, MOST_ROWS)
    by_source = attribute(process, np.zeros(len(process.waits), np.int64), held.source.astype(np.int64), told)

    def victim_stacks(shares: Shares) -> list[tuple[str, ...]]:
        return [sites.stack(number) for number in wait_stack[shares.wait].tolist()]

    def culprit_stacks(shares: Shares) -> list[tuple[str, ...]]:
        holds = longest.find(shares.wait, shares.culprit)
        return [sites.stack(number) for number in np.where(holds >= 0, np.append(hold_stack, -1)[holds], -1).tolist()]

    by_line = tuple(
        Blame(victim.sites[v], culprit.sites[c], ns, waits, most, victim_stack, culprit_stack)
        for (v, c, ns, waits, most, _), victim_stack, culprit_stack in zip(
            _rows(pairs), victim_stacks(pairs), culprit_stacks(pairs), strict=True
        )
    )
    return BlameTables(
        pairs=by_line,
        victims=tuple(
            BlameTotal(victim.sites[v], ns, waits, most, stack)
            for (v, _, ns, waits, most, _), stack in zip(_rows(anyone), victim_stacks(anyone), strict=True)
        ),
        culprits=tuple(
            BlameTotal(culprit.sites[c], ns, waits, most, stack)
            for (_, c, ns, waits, most, _), stack in zip(_rows(totals), culprit_stacks(totals), strict=True)
        ),
        functions=_by_function(process, sites.functions(victim), sites.functions(culprit), by_line),
        samples=len(process.samples),
        sampled_ns=int(by_source.ns[by_source.culprit >= Source.REQUEST].sum()),
    )


def _by_function(
    process: Process, victim: Classes, culprit: Classes, by_line: tuple[Blame, ...]
) -> tuple[FunctionBlame, ...]:
    lines = defaultdict[tuple[Site, Site], tuple[Counter[Site], Counter[Site]]](lambda: (Counter(), Counter()))
    for row in by_line:
        of_victim, of_culprit = lines[function_of(row.victim), function_of(row.culprit)]
        of_victim[row.victim] += row.ns
        of_culprit[row.culprit] += row.ns

    def told(side: Counter[Site]) -> tuple[LineBlame, ...]:
        return tuple(LineBlame(site, ns) for site, ns in side.most_common())

    pairs, _ = _attribute(process, victim.of_row, culprit.of_row, len(culprit.sites))
    made = ((victim.sites[v], culprit.sites[c], ns, waits, most) for v, c, ns, waits, most, _ in _rows(pairs))
    return tuple(FunctionBlame(*row, *map(told, lines[row[0], row[1]])) for row in made)


def _rows(shares: Shares) -> list[tuple[int, ...]]:
    return list(zip(*(column.tolist() for column in shares), strict=True))


def _attribute(process: Process, victim: Ints, culprit: Ints, classes: int) -> tuple[Shares, Shares]:
    """The largest pairs, and the largest culprits with their pairs added up; the victim of these means nothing.

    There can be millions of pairs: only what is told is kept.
    """
    pairs = joined([])
    by_culprit = _Culprits(classes)
    for part in attribute_in_parts(process, victim, culprit, process.of_chosen(process.waits)):
        by_culprit.add(part)
        pairs = largest(joined([pairs, part]), MOST_ROWS)
    return pairs, largest(by_culprit.shares(), MOST_ROWS)


class _Culprits:
    """Adds up the pairs of each culprit. A wait has one victim, so that its waits add up too."""

    def __init__(self, classes: int) -> None:
        self._ns, self._waits, self._most, self._wait = np.zeros((4, classes), np.int64)

    def add(self, pairs: Shares) -> None:
        """Add pairs that are in order of culprit."""
        one = merged(pairs._replace(victim=np.zeros_like(pairs.victim)))
        self._ns[one.culprit] += one.ns
        self._waits[one.culprit] += one.waits
        one = one.rows(one.max_ns > self._most[one.culprit])
        self._most[one.culprit], self._wait[one.culprit] = one.max_ns, one.wait

    def shares(self) -> Shares:
        """The culprits that cost anything."""
        own = np.flatnonzero(self._waits)
        return Shares(np.zeros_like(own), own, self._ns[own], self._waits[own], self._most[own], self._wait[own])

"""Who waited for whom: the line where threads waited against the line that held the GIL meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from giltrace.analysis.attribution import LongestOverlap, Shares, attribute
from giltrace.analysis.results import Blame, BlameTotal
from giltrace.analysis.sites import Classes, Sites
from giltrace.timeline.model import Process

#: So many pairs and sites are told, the largest ones.
MOST_ROWS = 1000


class BlameTables(NamedTuple):
    """Blame by pair, and each of its sides: what `victims` lost in all, and what `culprits` cost in all."""

    pairs: tuple[Blame, ...]
    victims: tuple[BlameTotal, ...]
    culprits: tuple[BlameTotal, ...]


def find_blame(process: Process) -> BlameTables:
    """Attribute every wait to the holds that overlap it; largest first, at most `MOST_ROWS` of each table.

    Time in which nobody held the GIL is nobody's: it is the wake-up time of the decomposition.
    """
    sites = Sites(process)
    wait_stack, hold_stack = sites.wait_stacks(), sites.hold_stacks()
    victim = sites.classify(process.waits["thread"], wait_stack)
    culprit = sites.classify(process.holds["thread"], hold_stack)
    shares = attribute(process, victim.of_row, culprit.of_row)
    longest = LongestOverlap(process, culprit.of_row)

    def culprit_stack(row: int) -> tuple[str, ...]:
        hold = longest.find(int(shares.wait[row]), int(shares.culprit[row]))
        return sites.stack(int(hold_stack[hold])) if hold >= 0 else ()

    pairs = tuple(
        Blame(
            victim=victim.sites[int(shares.victim[i])],
            culprit=culprit.sites[int(shares.culprit[i])],
            ns=int(shares.ns[i]),
            waits=int(shares.waits[i]),
            max_ns=int(shares.max_ns[i]),
            victim_stack=sites.stack(int(wait_stack[shares.wait[i]])),
            culprit_stack=culprit_stack(i),
        )
        for i in range(min(len(shares.ns), MOST_ROWS))
    )
    anyone = attribute(process, victim.of_row, np.zeros(len(process.holds), np.int64))
    victims = tuple(
        BlameTotal(
            victim.sites[int(anyone.victim[i])],
            int(anyone.ns[i]),
            int(anyone.waits[i]),
            int(anyone.max_ns[i]),
            sites.stack(int(wait_stack[anyone.wait[i]])),
        )
        for i in range(min(len(anyone.ns), MOST_ROWS))
    )
    return BlameTables(pairs, victims, _by_culprit(shares, culprit, culprit_stack))


def _by_culprit(shares: Shares, culprit: Classes, stack: Callable[[int], tuple[str, ...]]) -> tuple[BlameTotal, ...]:
    """Add up each culprit's rows. A wait has one victim, so that its waits add up too."""
    ns, waits, most = (np.zeros(len(culprit.sites), np.int64) for _ in range(3))
    np.add.at(ns, shares.culprit, shares.ns)
    np.add.at(waits, shares.culprit, shares.waits)
    np.maximum.at(most, shares.culprit, shares.max_ns)
    row = np.zeros(len(culprit.sites), np.int64)
    longest = np.flatnonzero(shares.max_ns == most[shares.culprit])[::-1]
    row[shares.culprit[longest]] = longest
    ranked = [i for i in np.argsort(-ns, kind="stable").tolist() if waits[i]][:MOST_ROWS]
    return tuple(
        BlameTotal(culprit.sites[i], int(ns[i]), int(waits[i]), int(most[i]), stack(int(row[i]))) for i in ranked
    )

"""Where the GIL was held while threads waited: the sites that some waits were lost to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.finding_results import BlameTotal
from giltrace.analysis.measure.attribution import LongestOverlap, Shares, attribute
from giltrace.analysis.measure.sites import Sites, main_place, main_site
from giltrace.analysis.measure.stretches import cut_process, stretches
from giltrace.analysis.site import Site
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.model import Process

#: What counts of a wait is told apart in so many steps: each costs as much as one more kind of waits.
_STEPS = 16


class MainCulprit(NamedTuple):
    """The function that some waits lost most to (`ns`), by the site of it that cost most and a `stack` of that site."""

    site: Site
    ns: int
    stack: tuple[str, ...]


class CulpritSites:
    """The sites of a process's holds, in `stretches`, as culprits of its waits; `own_lines`: the user's lines alone."""

    def __init__(self, process: Process, sites: Sites, *, own_lines: bool = False) -> None:
        held = stretches(process)
        self._sites, self._stack = sites, held.stack
        self._process = cut_process(process)
        classes = sites.classify(held.holds["thread"], held.stack)
        self._classes = sites.own_lines(classes) if own_lines else classes

    def ranked(self, chosen: Bools, most: int) -> tuple[BlameTotal, ...]:
        """The `most` sites that had the GIL longest in the chosen waits (bool, one per wait); without stacks."""
        nobody: Ints = np.zeros(len(self._process.waits), np.int64)
        shares = attribute(self._process, nobody, self._classes.of_row, chosen)
        _, site, *figures, _ = (column[:most].tolist() for column in shares)
        return tuple(BlameTotal(self._classes.sites[one], *row) for one, *row in zip(site, *figures, strict=True))

    def main(self, chosen: Bools) -> Site | None:
        """The site that had the GIL for most of the chosen waits (bool, one per wait); None if nobody had it."""
        return self.main_of(chosen.astype(np.float64))

    def main_of(self, part: npt.NDArray[np.float64]) -> Site | None:
        """The same where only a `part` of each wait (from 0 to 1) counts, in steps of `_STEPS` to a whole one."""
        step = np.ceil(part * _STEPS).astype(np.int64)
        shares = attribute(self._process, step, self._classes.of_row, step > 0)
        if not len(shares.culprit):
            return None
        had = np.bincount(shares.culprit, shares.ns * shares.victim)
        some = np.flatnonzero(had)
        sites: list[Site] = [self._classes.sites[one] for one in some.tolist()]
        return main_place(sites, had[some])

    def mains(self, victim: Ints, chosen: Bools) -> dict[int, MainCulprit]:
        """For each class of the chosen waits (one per wait) that lost any time: who it lost most of it to."""
        shares = attribute(self._process, victim, self._classes.of_row, chosen)
        shares = shares.rows(np.argsort(shares.victim, kind="stable"))
        victims, first = np.unique(shares.victim, return_index=True)
        edges = np.append(first, len(shares.victim)).tolist()
        longest = LongestOverlap(self._process, self._classes.of_row)
        found = {}
        for one, begin, end in zip(victims.tolist(), edges[:-1], edges[1:], strict=True):
            mine = Shares(*(column[begin:end] for column in shares))
            row, ns = self._main(mine)
            held = int(longest.find(mine.wait[row : row + 1], mine.culprit[row : row + 1])[0])
            stack = self._sites.stack(int(self._stack[held])) if held >= 0 else ()
            found[one] = MainCulprit(self._classes.sites[int(mine.culprit[row])], ns, stack)
        return found

    def _main(self, shares: Shares) -> tuple[int, int]:
        """The row of the function that cost most which cost most, and what that function cost."""
        return main_site([self._classes.sites[site] for site in shares.culprit.tolist()], shares.ns)

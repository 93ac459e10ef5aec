"""Where the GIL was held while threads waited: the sites that some waits were lost to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from giltrace.analysis.measure.attribution import attribute
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.stretches import stretches
from giltrace.analysis.results import BlameTotal, Site
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.model import Process


class CulpritSites:
    """The sites of a process's holds, in `stretches`, as culprits of its waits; `own_lines`: the user's lines alone."""

    def __init__(self, process: Process, sites: Sites, *, own_lines: bool = False) -> None:
        held = stretches(process)
        self._process = replace(process, holds=held.holds)
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
        return next((one.site for one in self.ranked(chosen, 1)), None)

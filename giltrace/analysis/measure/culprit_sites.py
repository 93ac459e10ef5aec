"""Where the GIL was held while threads waited: the one site that most of some waits was lost to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from giltrace.analysis.measure.attribution import attribute
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.stretches import stretches
from giltrace.analysis.results import Site
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.model import Process


class CulpritSites:
    """The sites of a process's holds, in `stretches`, as culprits of its waits."""

    def __init__(self, process: Process, sites: Sites) -> None:
        held = stretches(process)
        self._process = replace(process, holds=held.holds)
        self._classes = sites.classify(held.holds["thread"], held.stack)

    def main(self, chosen: Bools) -> Site | None:
        """The site that had the GIL for most of the chosen waits (bool, one per wait); None if nobody had it."""
        nobody: Ints = np.zeros(len(chosen), np.int64)
        shares = attribute(self._process, nobody, self._classes.of_row, chosen)
        return self._classes.sites[int(shares.culprit[0])] if len(shares.ns) else None

"""Whose line it was that made a limit fail."""

from __future__ import annotations

from functools import cached_property

from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.ranked import find_findings
from giltrace.analysis.measure.culprit_sites import CulpritSites
from giltrace.analysis.site import Site
from giltrace.timeline.axis import Bools

#: What waits are lost to where a process has such a verdict, as `findings.ranked` calls it; of the others, to anything.
_LOST_TO = {
    "hog": ("hog", "collection"),
    "convoy": ("convoy", "starvation"),
    "cpu-bound-contention": ("contention", "import", "hand-offs"),
}


class Places:
    """The sites that are to blame in a process; what costs more is worked out when it is first asked for."""

    def __init__(self, figures: Costed) -> None:
        self._process, self._figures = figures.process, figures

    def of_waits(self, chosen: Bools) -> Site | None:
        """The site that had the GIL for most of the chosen waits (bool, one per wait); None if nobody had it."""
        return self._culprits.main(chosen)

    def of_hold(self, hold: int) -> Site:
        """The site of one hold."""
        stack = self._figures.sites.hold_stacks()[hold : hold + 1]
        return self._figures.sites.classify(self._process.holds["thread"][hold : hold + 1], stack).sites[0]

    def of_verdict(self, kind: str) -> Site | None:
        """The culprit of the costliest finding that a verdict of this kind speaks of."""
        found = [one for one in find_findings(self._process, self._figures) if one.culprit is not None]
        meant = [one for one in found if one.cause in _LOST_TO.get(kind, ())] or found
        return meant[0].culprit if meant else None

    @cached_property
    def _culprits(self) -> CulpritSites:
        return CulpritSites(self._process, self._figures.sites)

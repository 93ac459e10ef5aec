"""Everything that waits for the GIL were lost to, the costliest first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from giltrace.analysis.finding_results import Finding, Hog
from giltrace.analysis.findings.costs import Cause, Costed, Costs
from giltrace.analysis.findings.figures import ONE_CORE
from giltrace.analysis.findings.forked import forked
from giltrace.analysis.findings.hand_over import hand_over
from giltrace.analysis.findings.hogs import CALLED_FOR
from giltrace.analysis.findings.hogs import advice as hog_advice
from giltrace.analysis.findings.imports import lost_modules
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.culprit_sites import CulpritSites
from giltrace.analysis.measure.sites import Sites, function_of, main_place
from giltrace.analysis.site import Site
from giltrace.timeline.model import Process

#: What costs less than this share of all waiting is left out: nobody would mend it, and rounding makes such rows.
LEAST_SHARE = 0.01

#: What each cause is called, what it is, and what to do about it.
_TOLD = {
    Cause.CONTENTION: (
        "contention",
        "while other threads ran Python code",
        "Use processes, sub-interpreters, a free-threaded build, or native code that releases the GIL.",
    ),
    Cause.CONVOY: (
        "convoy",
        "before short steps, while other threads ran Python code until they were asked to stop",
        "Move the CPU-bound work to other processes.",
    ),
    Cause.STARVATION: (
        "starvation",
        "while other threads ran for longer than Python's own switch interval lets them",
        "Set sys.setswitchinterval() back to 0.005.",
    ),
    Cause.HOG: (
        "hog",
        "while native code kept the GIL past a switch request",
        hog_advice(),
    ),
    Cause.COLLECTION: (
        "collection",
        "while garbage was collected",
        "Call gc.freeze() once the program has started, raise gc.set_threshold(), or make fewer objects.",
    ),
    Cause.IMPORT: (
        "import",
        "while other threads imported modules",
        "Import before the threads start, or before the service takes requests.",
    ),
    Cause.HAND_OFFS: (
        "hand-offs",
        "for the rest of brief turns of other threads",
        "Let threads do more at a time, so that they hand the GIL on less often.",
    ),
    Cause.NO_CORE: (
        "no core",
        "while the holder could have gone on, but had no core",
        "See what else ran on this machine, and what CPU limit the process has.",
    ),
    Cause.ASLEEP: (
        "asleep",
        "while the holder slept in the kernel with the GIL: for a page of memory, or in a call that keeps the GIL",
        "See what the holder called there: such a call should release the GIL around what it waits for.",
    ),
    Cause.WAKE_UP: (
        "wake-up",
        "while nobody held the GIL, and they were being woken up to take it",
        "Let threads do more at a time, so that they hand the GIL on less often.",
    ),
}

#: What to do about it instead where the process may use one core only.
_ON_ONE_CORE = {
    Cause.CONTENTION: f"{ONE_CORE}: neither threads nor processes speed this up before it may use more.",
    Cause.CONVOY: f"{ONE_CORE}: lower sys.setswitchinterval() and measure.",
    Cause.NO_CORE: f"{ONE_CORE}: let it use more, or see what else runs there.",
}

#: What they are called, by `Cause`.
CAUSES = tuple(_TOLD[cause][0] for cause in Cause)


def find_findings(process: Process, figures: Costed | None = None, hogs: Sequence[Hog] = ()) -> tuple[Finding, ...]:
    """What each cause of waiting cost those threads that are asked about, where, whom and since when.

    The first are those that the end hung on, or, if that was hardly any, those to which the threads lost most. Of the
    `hogs`, those at the same lines tell in which functions they were.
    """
    if len(process.waits) == 0:
        return ()
    figures = figures or Costed(process)
    costs = figures.costs
    costs = costs._replace(ns=np.where(process.of_chosen(process.waits)[:, None], costs.ns, 0))
    lost, path = costs.of_threads(), costs.of_path()
    causes = [cause for cause in Cause if lost[cause] >= max(LEAST_SHARE * lost.sum(), 1)]
    sides = _Sides(process, costs)
    found = []
    for cause in causes:
        name, summary, advice = _TOLD[cause]
        if figures.one_core:
            advice = _ON_ONE_CORE.get(cause, advice)
        if cause is Cause.CONTENTION and (own := hand_over(figures) or forked(figures)) is not None:
            advice = own.advice
        victim = sides.victim(cause)
        culprit = None if cause in (Cause.NO_CORE, Cause.WAKE_UP) else sides.culprit(cause, victim)
        if cause is Cause.HOG:
            mine = next((hog for hog in hogs if culprit is not None and hog.site.where == culprit.where), None)
            advice = hog_advice(mine.functions, mine.samples) if mine is not None else advice
        if cause is Cause.COLLECTION and culprit is not None:
            called = culprit.where in [site.where for site in figures.called_for]
            advice = CALLED_FOR if called else advice
        if cause is Cause.IMPORT and (modules := lost_modules(figures, costs)[0]):
            summary += f": {modules}"
        waits = np.flatnonzero(costs.ns[:, cause])
        found.append(
            Finding(
                cause=name,
                summary=summary,
                advice=advice,
                ns=int(lost[cause]),
                path_ns=int(path[cause]),
                waits=len(waits),
                max_ns=int(costs.ns[:, cause].max()),
                since_ns=int(process.waits["start"][waits].min()) - process.start,
                victim=victim,
                culprit=culprit,
            )
        )
    ns = costs.deciding(list(Cause), max(process.end - process.start, 1))
    rank = {_TOLD[cause][0]: int(ns[cause]) for cause in causes}
    return tuple(sorted(found, key=lambda one: (-rank[one.cause], -one.ns)))


class _Sides:
    """Who lost most to a cause, and who had the GIL in most of that. Of the same waits, so nobody waits for itself.

    Of each wait counts what the cause cost.
    """

    def __init__(self, process: Process, costs: Costs) -> None:
        self._costs = costs
        self._length = np.maximum(usage.lengths(process.waits), 1)
        sites = Sites(process)
        self._victims = sites.classify(process.waits["thread"], sites.wait_stacks())
        self._functions = [function_of(site) for site in self._victims.sites]
        self._culprits = CulpritSites(process, sites)

    def victim(self, cause: Cause) -> Site:
        """The site that lost most."""
        ns = self._costs.ns[:, cause]
        lost = np.bincount(self._victims.of_row, weights=ns, minlength=len(self._victims.sites))
        return main_place(self._victims.sites, lost)

    def culprit(self, cause: Cause, victim: Site) -> Site | None:
        """The site that had the GIL for most of what the victim's function lost to `cause`.

        Above all in waits of which that was the largest part: who had the GIL in the rest of them is no culprit.
        """
        whose = function_of(victim)
        theirs = np.array([function == whose for function in self._functions], np.bool_)[self._victims.of_row]
        above_all = theirs & (self._costs.ns.argmax(axis=1) == cause)
        chosen = above_all if above_all.any() else theirs
        return self._culprits.main_of(np.where(chosen, self._costs.ns[:, cause] / self._length, 0))

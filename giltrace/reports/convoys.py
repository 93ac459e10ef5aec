"""Convoys by the role of their threads: what ten alike went through is told once."""

from __future__ import annotations

from collections.abc import Sequence

from giltrace.analysis.finding_results import Convoy
from giltrace.analysis.measure.sites import function_of
from giltrace.analysis.site import Site


def alike(convoys: Sequence[Convoy]) -> list[tuple[Convoy, int]]:
    """Of the threads of each role that wait in one function the first, and how many there are."""
    groups: dict[Site, list[Convoy]] = {}
    for convoy in convoys:
        groups.setdefault(function_of(convoy.site), []).append(convoy)
    return [(group[0], len(group)) for group in groups.values()]

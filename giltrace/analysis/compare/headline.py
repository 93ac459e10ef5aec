"""Two recordings in one line: how long they took, what threads lost to the GIL, and what is new or gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from giltrace.analysis.compare.noise import Change
from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Finding
from giltrace.analysis.findings.ranked import find_findings
from giltrace.analysis.site import Site
from giltrace.timeline.model import Timeline

#: A cause of waiting that cost less than this share of a recording's time is none, and one that costs less than twice
#: as much as before is not new.
LEAST_COST = 0.02
NEW = 2.0
#: One recording takes so many times as long as the other before it is said.
TELLING = 1.1
#: So many new and gone findings are told, the costliest.
MOST_TOLD = 3
#: What need not be said of all that was lost where all findings are so.
_IMPLIED_BY = {"higher": "new", "lower": "gone"}


@dataclass(frozen=True)
class FindingChange:
    """A cause of waiting (`findings.ranked`), and what threads lost to it in each recording, in ns.

    `change` is "new", "gone", or "kept"; the victim and the culprit are those of the recording in which it cost more.
    """

    cause: str
    change: Literal["new", "gone", "kept"]
    before_ns: int
    after_ns: int
    victim: Site
    culprit: Site | None


def finding_changes(before: Timeline, after: Timeline) -> tuple[FindingChange, ...]:
    """What both recordings lost to each cause that matters in one of them, the costliest first."""
    sides = [_by_cause(timeline) for timeline in (before, after)]
    walls = [max(timeline.end - timeline.start, 1) for timeline in (before, after)]
    changes = []
    for cause in {**sides[0], **sides[1]}:
        found = [side.get(cause, []) for side in sides]
        ns = [sum(one.ns for one in side) for side in found]
        old, new = (cost / wall for cost, wall in zip(ns, walls, strict=True))
        if max(old, new) < LEAST_COST:
            continue
        worst = max(found[new >= old], key=lambda one: one.ns)
        change = _change(old, new)
        changes.append(FindingChange(cause, change, ns[0], ns[1], worst.victim, worst.culprit))
    return tuple(sorted(changes, key=lambda one: -max(one.before_ns / walls[0], one.after_ns / walls[1])))


def _by_cause(timeline: Timeline) -> dict[str, list[Finding]]:
    causes: dict[str, list[Finding]] = {}
    for process in timeline.processes:
        for found in find_findings(process):
            causes.setdefault(found.cause, []).append(found)
    return causes


def _change(old: float, new: float) -> Literal["new", "gone", "kept"]:
    if old < LEAST_COST and new >= NEW * old:
        return "new"
    return "gone" if new < LEAST_COST and old >= NEW * new else "kept"


def headline(
    times_as_long: float | None,
    lost: tuple[float, float, Change],
    findings: Sequence[FindingChange],
    *,
    changed: bool,
) -> str:
    """The comparison in one line; `lost` is the time lost per time recorded, before and after, and whether it changed.

    `times_as_long` is None where the lengths say nothing.
    """
    told = []
    if times_as_long is not None and times_as_long >= TELLING:
        told.append(f"{_times(times_as_long)} as long")
    elif times_as_long is not None and times_as_long <= 1 / TELLING:
        told.append(f"{_times(1 / max(times_as_long, 1e-9))} as fast")
    turned = [one for one in findings if one.change != "kept"][:MOST_TOLD]
    before, after, change = lost
    if change in ("higher", "lower") and {one.change for one in turned} != {_IMPLIED_BY[change]}:
        word = "more" if change == "higher" else "less"
        told.append(f"{word} lost to the GIL: {percent(before)} -> {percent(after)}")
    told += [f"{one.cause} of {one.victim.thread} {one.change}" for one in turned]
    if not told:
        told.append("threads or culprits changed" if changed else "no change beyond noise")
    return "; ".join(told)


def _times(factor: float) -> str:
    return f"{factor:.1f} times" if factor < 9.95 else f"{factor:,.0f} times"


def cost(found: FindingChange) -> str:
    """What a finding cost, in words."""
    return f"{duration(found.before_ns)} -> {duration(found.after_ns)}"

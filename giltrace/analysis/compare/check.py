"""Limits on what a recording may show, for continuous integration: each rule passes or fails with its figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from giltrace.analysis.compare.limits import LIMITS, Chosen, Measured, Unit
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.kinds import KINDS
from giltrace.analysis.site import Site
from giltrace.errors import UsageError
from giltrace.timeline.model import Timeline

#: The version of `giltrace check --json`: fields are added under it, never renamed or removed.
SCHEMA = "giltrace-check-1"
#: The rule on the recording itself: how many of its events were lost.
LOST = "max-lost"
#: The rules on verdicts.
VERDICT, VERDICT_NOT = "verdict", "verdict-not"


@dataclass(frozen=True)
class Rule:
    """One limit: `name` is a key of `LIMITS` with a number (ns, share of 1 or count), or "verdict" or "verdict-not"
    with kinds of verdict, one of which every process must have, or none may have.
    """

    name: str
    limit: float | tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of one rule: `measured` is the worst figure found, at `where`; None if nothing was measured.

    Of one that failed, `culprit` is the site that is to blame: where the hold was, or the GIL was held during the wait.
    """

    rule: str
    passed: bool
    measured: float | str | None
    limit: float | tuple[str, ...]
    unit: Unit
    where: str
    culprit: Site | None = None


@dataclass(frozen=True)
class CheckResult:
    """All outcomes, in the order of the rules; `lost` is how many events of the recording could not be stored, and
    `damage` says in words what of it could not be read. `part` says which part of the recording was checked.
    """

    schema: str
    passed: bool
    outcomes: tuple[Outcome, ...]
    lost: int
    damage: tuple[str, ...] = ()
    part: tuple[str, ...] = ()


def check(timeline: Timeline, rules: Sequence[Rule]) -> CheckResult:
    """Hold a timeline, or the part of one that `analysis.selection` chose, against `rules`.

    Waits, holds and shares are those of the chosen threads; a verdict is of a whole process, lost events are of the
    whole recording. A limit on times fails if nothing was measured, for then nothing is known. Raises `UsageError` as
    `refuse_wrong` does, or if there is no process.
    """
    refuse_wrong(rules)
    if not timeline.processes:
        raise UsageError("no process in the recording", "there is nothing to check")
    chosen = [Chosen(one, timeline.began_ns) for one in timeline.processes]
    outcomes = tuple(_outcome(rule, timeline, chosen) for rule in rules)
    passed = all(outcome.passed for outcome in outcomes)
    return CheckResult(SCHEMA, passed, outcomes, timeline.lost, timeline.damage, timeline.part)


def refuse_wrong(rules: Sequence[Rule]) -> None:
    """Raise `UsageError` if one of the rules or its kind of verdict does not exist, or if there is none."""
    if not rules:
        raise UsageError(
            "nothing to check",
            "give at least one rule, such as --max-wait-p99 10ms, here or in pyproject.toml's [tool.giltrace.check]; "
            "see --help",
        )
    for rule in rules:
        if not isinstance(rule.limit, tuple) and rule.name not in (*LIMITS, LOST):
            raise UsageError(f"there is no rule {rule.name!r}", f"there are: {', '.join([*LIMITS, LOST])}")
        unknown = [kind for kind in rule.limit if kind not in KINDS] if isinstance(rule.limit, tuple) else []
        if unknown:
            raise UsageError(f"there is no verdict {unknown[0]!r}", f"there are: {', '.join(KINDS)}")


def _outcome(rule: Rule, timeline: Timeline, chosen: Sequence[Chosen]) -> Outcome:
    if isinstance(rule.limit, tuple):
        return _verdict_outcome(rule.name, rule.limit, chosen)
    if rule.name == LOST:
        return Outcome(rule.name, timeline.lost <= rule.limit, timeline.lost, rule.limit, "count", "the recording")
    unit, figures = LIMITS[rule.name]
    if not any(map(_measured, chosen)):
        why = "; ".join(sorted({one.process.note for one in chosen} - {""}))
        return Outcome(rule.name, False, None, rule.limit, unit, why or "no use of a GIL is on record")
    several = len(timeline.processes) > 1
    worst = Measured(0, "", lambda: None)
    for one in chosen:
        for figure in figures(one):
            if figure.value > worst.value:
                worst = figure._replace(where=f"{figure.where}, process {one.process.pid}" if several else figure.where)
    passed = worst.value <= rule.limit
    culprit = None if passed else worst.culprit()
    return Outcome(rule.name, passed, worst.value, rule.limit, unit, worst.where, culprit)


def _measured(one: Chosen) -> bool:
    """Whether its use of a GIL is known: on record, or impossible as in a free-threaded build."""
    return len(one.process.holds) > 0 or judge(one.process, one.figures).kind == "free-threaded"


def _verdict_outcome(name: str, kinds: tuple[str, ...], chosen: Sequence[Chosen]) -> Outcome:
    found = [(judge(one.process, one.figures).kind, one) for one in chosen]
    wrong = [(kind, one) for kind, one in found if (kind in kinds) == (name == VERDICT_NOT)]
    shown = wrong or found
    told = dict.fromkeys(kind for kind, _ in shown)
    where = ", ".join(str(one.process.pid) for _, one in shown)
    culprits = (one.places.of_verdict(kind) for kind, one in wrong)
    culprit = next((site for site in culprits if site is not None), None)
    return Outcome(name, not wrong, ", ".join(told), kinds, "verdict", f"process {where}", culprit)

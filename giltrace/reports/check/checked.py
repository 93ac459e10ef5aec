"""What all forms of the outcome of `giltrace check` are made of: each recording's result, and its words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from giltrace.analysis.compare.check import VERDICT_NOT, CheckResult, Outcome
from giltrace.analysis.compare.limits import Unit
from giltrace.analysis.durations import duration, percent
from giltrace.errors import GiltraceError
from giltrace.reports.names import site_name


@dataclass(frozen=True)
class Checked:
    """One recording, by its `name`, and its outcomes; or the `error` for which nothing in it could be checked."""

    name: str
    result: CheckResult | None
    error: GiltraceError | None = None

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """What became of its rules; nothing of one that could not be checked."""
        return self.result.outcomes if self.result is not None else ()

    @property
    def failed(self) -> int:
        """How many rules it fails."""
        return sum(not outcome.passed for outcome in self.outcomes)


class Words(NamedTuple):
    """An outcome in words: what was `measured`, how that compares, and the `limit`."""

    measured: str
    relation: str
    limit: str


def words(outcome: Outcome) -> Words:
    """Write the figures of an outcome so that their difference shows."""
    if isinstance(outcome.limit, tuple):
        relation = "not allowed:" if outcome.rule == VERDICT_NOT else "wanted:"
        return Words(f"{outcome.measured}", relation, " or ".join(outcome.limit))
    if not isinstance(outcome.measured, float | int):
        return Words("not measured", "limit", _figure(outcome.limit, outcome.unit))
    measured, limit = _figure(outcome.measured, outcome.unit), _figure(outcome.limit, outcome.unit)
    if measured == limit and outcome.measured != outcome.limit:
        # So close that rounding hides the difference.
        suffix = " ns" if outcome.unit == "ns" else ""
        measured, limit = f"{outcome.measured}{suffix}", f"{outcome.limit}{suffix}"
    return Words(measured, "<=" if outcome.passed else ">", limit)


def sentence(outcome: Outcome) -> str:
    """An outcome in one line: figures, whose they are, and whose line is to blame."""
    measured, relation, limit = words(outcome)
    comma = "" if relation in ("<=", ">") else ","
    where = f" ({outcome.where})" if outcome.where else ""
    culprit = f", by {site_name(outcome.culprit)}" if outcome.culprit is not None else ""
    return f"{measured}{comma} {relation} {limit}{where}{culprit}"


def label(outcome: Outcome) -> str:
    """A rule with its limit, which tells it from the others: ``max-wait 10.0 ms``."""
    return f"{outcome.rule} {words(outcome).limit}"


def notes(result: CheckResult) -> list[str]:
    """What a reader of the figures should know: events and files that are missing."""
    lost = f"{result.lost} events were lost, so these figures may be too low (--max-lost 0 makes that fail)"
    return [*([lost] if result.lost else []), *result.damage]


def _figure(value: float, unit: Unit) -> str:
    return duration(value) if unit == "ns" else percent(value) if unit == "share" else f"{value:.0f}"

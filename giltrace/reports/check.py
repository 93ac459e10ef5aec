"""The outcome of `giltrace check`: a line per rule, or JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from giltrace.analysis.compare.check import CheckResult, Outcome, Unit
from giltrace.analysis.durations import duration, percent
from giltrace.text import json_text


def lines(result: CheckResult) -> Iterator[str]:
    """Yield a line per rule, and more if it is about a part, or if events or files are missing."""
    if result.part:
        yield f"part: {'; '.join(result.part)}"
    for outcome in result.outcomes:
        yield f"{'PASS' if outcome.passed else 'FAIL'} {outcome.rule}: {_told(outcome)}"
    if result.lost:
        yield f"note: {result.lost} events were lost, so these figures may be too low (--max-lost 0 makes that fail)"
    yield from (f"note: {one}" for one in result.damage)


def as_json(result: CheckResult, recording: str) -> str:
    """The same as a JSON document; times in ns, shares of 1."""
    told = asdict(result)
    rules = told.pop("outcomes")
    return json_text({**told, "recording": recording, "rules": rules}, indent=1)


def _told(outcome: Outcome) -> str:
    where = f" ({outcome.where})" if outcome.where else ""
    if isinstance(outcome.limit, tuple):
        wanted = " or ".join(outcome.limit)
        return f"{outcome.measured}, {'not allowed: ' if outcome.rule == 'verdict-not' else 'wanted: '}{wanted}{where}"
    if not isinstance(outcome.measured, float | int):
        return f"not measured, limit {_figure(outcome.limit, outcome.unit)}{where}"
    measured, limit = _figure(outcome.measured, outcome.unit), _figure(outcome.limit, outcome.unit)
    if measured == limit and outcome.measured != outcome.limit:
        # So close that rounding hides the difference.
        suffix = " ns" if outcome.unit == "ns" else ""
        measured, limit = f"{outcome.measured}{suffix}", f"{outcome.limit}{suffix}"
    return f"{measured} {'<=' if outcome.passed else '>'} {limit}{where}"


def _figure(value: float, unit: Unit) -> str:
    return duration(value) if unit == "ns" else percent(value) if unit == "share" else f"{value:.0f}"

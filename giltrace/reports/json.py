"""A report as JSON, with stable names: docs/report-json.md describes every field."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.results import Report, WaitDecomposition
from giltrace.recording.collected import CollectorReport
from giltrace.text import json_text


def to_json(report: Report, *, indent: int | None = 2) -> str:
    """Write a report as JSON text; times are integers of nanoseconds."""
    return json_text(to_dict(report), indent)


def to_dict(report: Report) -> dict[str, Any]:
    """The report as JSON has it: dicts, lists, strings and numbers."""
    result: dict[str, Any] = _plain(report)
    return result


def _plain(value: Any) -> Any:
    if isinstance(value, Verdict):
        return _verdict(value)
    if isinstance(value, WaitDecomposition):
        return {field.name.removesuffix("_ns"): getattr(value, field.name) for field in fields(value)}
    if isinstance(value, CollectorReport):
        return {
            "name": value.name,
            "status": value.status,
            "cost": value.cost,
            "clock_error_ns": value.clock_error_ns,
            "lost_events": value.lost,
        }
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _verdict(verdict: Verdict) -> dict[str, Any]:
    return {
        "kind": verdict.kind,
        "summary": verdict.summary,
        "evidence": [{"name": name, "value": value} for name, value in verdict.evidence.items()],
        "advice": [verdict.advice] if verdict.advice else [],
    }

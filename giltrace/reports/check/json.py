"""The outcome of `giltrace check` as a JSON document; times in ns, shares of 1."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from giltrace.analysis.compare.check import SCHEMA
from giltrace.reports.check.checked import Checked
from giltrace.text import json_text


def lines(checked: Sequence[Checked]) -> Iterator[str]:
    """Yield one document for any number of recordings: all their rules, each with the name of its recording."""
    results = [one.result for one in checked if one.result is not None]
    yield json_text(
        {
            "schema": SCHEMA,
            "passed": all(one.result is not None and one.result.passed for one in checked),
            "lost": sum(result.lost for result in results),
            "damage": [damage for result in results for damage in result.damage],
            "part": list(dict.fromkeys(part for result in results for part in result.part)),
            "recording": checked[0].name if len(checked) == 1 else None,
            "rules": [{**asdict(outcome), "recording": one.name} for one in checked for outcome in one.outcomes],
            "recordings": [_recording(one) for one in checked],
        },
        indent=1,
    )


def _recording(one: Checked) -> dict[str, object]:
    error = None if one.error is None else {"message": one.error.message, "remedy": one.error.remedy}
    if one.result is None:
        return {"recording": one.name, "passed": False, "lost": 0, "damage": [], "part": [], "error": error}
    told = {name: getattr(one.result, name) for name in ("passed", "lost", "damage", "part")}
    return {"recording": one.name, **told, "error": error}

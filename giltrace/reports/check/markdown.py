"""The outcome of `giltrace check` as Markdown: a table for a step's summary or a comment, what failed first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from giltrace.analysis.compare.check import Outcome
from giltrace.reports.check.checked import Checked, notes, words
from giltrace.reports.markdown import MOST_BYTES, code, escaped, table
from giltrace.reports.names import site_name
from giltrace.text import plural

#: Half of what there is room for is the table's.
_ROOM = MOST_BYTES // 2
_HEADS = ("", "recording", "rule", " measured", " limit", "whose", "by")


def lines(checked: Sequence[Checked]) -> Iterator[str]:
    """Yield a heading that says how it went, the rules in a table, and what could not be checked or is missing."""
    rules = [(one, outcome) for one in checked for outcome in one.outcomes]
    failed = [row for row in rules if not row[1].passed]
    errors = [one for one in checked if one.error is not None]
    told = f"{len(failed)} of {plural(len(rules), 'rule')} failed" if failed else f"{plural(len(rules), 'rule')} passed"
    if errors:
        told += f", {plural(len(errors), 'recording')} could not be checked"
    yield f"### giltrace check: {told}"
    yield ""
    if rules:
        passed = [row for row in rules if row[1].passed]
        yield from table(_HEADS, (_row(one, outcome) for one, outcome in failed + passed), _ROOM)
        yield ""
    remarks = [f"* {code(one.name)}: {escaped(one.error.message)}" for one in errors if one.error is not None]
    remarks += [
        f"* {code(one.name)}: {escaped(told)}"
        for one in checked
        if one.result is not None
        for told in [*one.result.part, *notes(one.result)]
    ]
    room = _ROOM - 100
    for remark in remarks:
        room -= len(remark.encode()) + 1
        if room >= 0:
            yield remark


def _row(one: Checked, outcome: Outcome) -> tuple[str, ...]:
    measured, relation, limit = words(outcome)
    return (
        "pass" if outcome.passed else "**FAIL**",
        code(one.name),
        outcome.rule,
        escaped(measured),
        escaped(limit if relation in ("<=", ">", "limit") else f"{relation} {limit}"),
        code(outcome.where),
        code(site_name(outcome.culprit)) if outcome.culprit is not None else "",
    )

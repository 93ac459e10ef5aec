"""The outcome of `giltrace check` as lines of text: one per rule, which begin with PASS or FAIL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from giltrace.reports.check.checked import Checked, notes, sentence
from giltrace.text import visible


def lines(checked: Sequence[Checked]) -> Iterator[str]:
    """Yield a line per rule, and more for parts and for what is missing; of several recordings led by their names."""
    for one in checked:
        if one.result is None:
            continue
        name = f"{visible(one.name)}: " if len(checked) > 1 else ""
        if one.result.part:
            yield f"{name}part: {'; '.join(one.result.part)}"
        for outcome in one.outcomes:
            yield f"{name}{'PASS' if outcome.passed else 'FAIL'} {outcome.rule}: {sentence(outcome)}"
        yield from (f"{name}note: {note}" for note in notes(one.result))

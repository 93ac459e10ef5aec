"""Results of analyses that show themselves: ``print`` gives the page of a terminal, a notebook a table."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

from giltrace.analysis import results, summary

if TYPE_CHECKING:
    from rich.console import Console


class Report(results.Report):
    """A report that prints what `giltrace report` does."""

    @classmethod
    def showing(cls, told: results.Report) -> Report:
        """The same results."""
        return cls(**{field.name: getattr(told, field.name) for field in fields(told)})

    def __str__(self) -> str:
        from giltrace.reports.terminal import print_report

        return _printed(lambda console: print_report(self, console))

    def _repr_html_(self) -> str:
        from giltrace.reports.html.fragment import of_report

        return of_report(self)


class Summary(summary.Summary):
    """A summary that prints what `giltrace record` does at its end."""

    @classmethod
    def showing(cls, told: summary.Summary) -> Summary:
        """The same results."""
        return cls(**{field.name: getattr(told, field.name) for field in fields(told)})

    def __str__(self) -> str:
        from giltrace.reports.summary import print_summary

        return _printed(lambda console: print_summary(self, console))

    def _repr_html_(self) -> str:
        from giltrace.reports.html.fragment import of_summary

        return of_summary(self)


def _printed(show: Callable[[Console], None]) -> str:
    """What `show` prints on a terminal as wide as this one, without colour and without the last line's end."""
    from rich.console import Console

    text = io.StringIO()
    show(Console(file=text, width=Console().width, color_system=None))
    return text.getvalue().rstrip("\n")

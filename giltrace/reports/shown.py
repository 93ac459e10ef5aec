"""Results of analyses that show themselves: ``print`` gives the page of a terminal, a notebook a table."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from giltrace.analysis import results, summary

if TYPE_CHECKING:
    from rich.console import Console

_Same = TypeVar("_Same", bound="_Shown")


class _Shown:
    @classmethod
    def showing(cls: type[_Same], told: Any) -> _Same:
        """The same results as those `told`, which do not show themselves."""
        return cls(**{field.name: getattr(told, field.name) for field in fields(told)})


class Report(_Shown, results.Report):
    """A report that prints what `giltrace report` does."""

    def __str__(self) -> str:
        from giltrace.reports.terminal import print_report

        return _printed(lambda console: print_report(self, console))

    def _repr_html_(self) -> str:
        from giltrace.reports.html.fragment import of_report

        return of_report(self)


class Summary(_Shown, summary.Summary):
    """A summary that prints what `giltrace record` does at its end."""

    def __str__(self) -> str:
        from giltrace.reports.summary import print_summary

        return _printed(lambda console: print_summary(self, console))

    def _repr_html_(self) -> str:
        from giltrace.reports.html.fragment import of_summary

        return of_summary(self)


def _printed(show: Callable[[Console], None]) -> str:
    """What `show` prints on a terminal as wide as this one, without colour and without the last line's end."""
    from giltrace.reports.console import console

    text = io.StringIO()
    show(console(file=text, width=console().width, color_system=None))
    return text.getvalue().rstrip("\n")

"""Results that show themselves: what is printed, and what a notebook gets."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console

import giltrace
from giltrace.api import Recording
from giltrace.errors import UsageError
from giltrace.reports.html.fragment import of_report, of_summary
from giltrace.reports.summary import print_summary
from giltrace.reports.terminal import print_report
from giltrace.timeline.model import Timeline
from tests.unit.gil_events import Script, timeline
from tests.unit.test_summary_verdict import convoy

NASTY = "<img src=x onerror=alert(1)>&\"'"


def recording(built: Timeline) -> Recording:
    return Recording(Path("made-up.giltrace"), built)


@pytest.mark.parametrize("width", [60, 120])
def test_printed_results_are_those_of_the_command_line(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    one = recording(timeline(*convoy()))
    shown = io.StringIO()
    print_report(one.report(), Console(file=shown, width=width))
    assert f"{one.report()}\n" == shown.getvalue()
    assert isinstance(one.report(), giltrace.Report)
    shown = io.StringIO()
    print_summary(one.summary(), Console(file=shown, width=width))
    assert f"{one.summary()}\n" == shown.getvalue()


def test_a_width_that_cannot_be_meant_is_eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    one = recording(timeline(*convoy()))
    monkeypatch.setenv("COLUMNS", "80")
    expected = str(one.report()), str(one.summary())
    monkeypatch.setenv("COLUMNS", "0")
    assert (str(one.report()), str(one.summary())) == expected


def test_no_colour_reaches_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in str(recording(timeline(*convoy())).report())


class Checker(HTMLParser):
    """Notes elements, and that all are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        assert {name for name, _ in attrs} <= {"style", "class"}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def read(fragment: str | None) -> Checker:
    checker = Checker()
    checker.feed(fragment or "")
    assert checker.open == []
    assert checker.seen <= {"div", "p", "small", "b", "br", "table", "thead", "tbody", "tr", "th", "td"}
    return checker


def test_a_notebook_gets_the_verdict_and_a_table() -> None:
    one = recording(timeline(*convoy()))
    of_all, of_threads = read(one.report()._repr_html_()), read(one.summary()._repr_html_())
    for shown in (of_all, of_threads):
        assert "Verdict: convoy" in shown.text
    assert "lost to" in of_all.text
    assert "longest wait" in of_threads.text
    drawing = re.compile(r"<svg .*?</svg>")
    assert len(drawing.findall(one._repr_html_() or "")) == 1
    assert drawing.sub("", one._repr_html_() or "") == one.summary()._repr_html_()
    assert len(one._repr_html_() or "") < 15_000


def test_a_notebook_gets_what_is_printed_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """There rich shows what it is told to write."""
    one = recording(timeline(*convoy()))
    expected = str(one.report()), str(one.summary())
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert (str(one.report()), str(one.summary())) == expected


def test_names_are_no_html_and_many_are_counted() -> None:
    built = timeline(*convoy())
    (process,) = built.processes
    threads = tuple(thread._replace(name=NASTY) for thread in process.threads)
    built = replace(built, processes=(replace(process, threads=threads, python=NASTY),) * 6)
    one = recording(built)
    for shown in (read(of_report(one.report())), read(of_summary(one.summary()))):
        assert "<img" in shown.text
        assert "2 more processes" in shown.text


def test_nothing_recorded_is_said() -> None:
    one = recording(replace(timeline(Script(), end=10), processes=()))
    assert "No Python process was recorded." in read(one._repr_html_()).text
    assert "No Python process was recorded." in read(one.report()._repr_html_()).text


def test_an_error_is_told_with_its_remedy() -> None:
    assert str(UsageError("what happened", "what to do")) == "what happened\n  what to do"
    assert str(UsageError("what happened")) == "what happened"

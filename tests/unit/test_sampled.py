"""Whatever shows a sampled recording says that it is sampled, and how well; an exact one says nothing of it."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from giltrace.analysis.report import analyse
from giltrace.analysis.summary import summarise
from giltrace.exporters.perfetto.trace import write
from giltrace.recording.events import Sampling
from giltrace.reports.html import write_html
from giltrace.reports.json import to_dict
from giltrace.reports.summary import print_summary
from giltrace.reports.terminal import print_report
from giltrace.timeline.model import Timeline
from tests.unit.gil_events import timeline
from tests.unit.test_summary_verdict import convoy

SAMPLING = Sampling(
    samples=11_801,
    interval_ns=84_746,
    typical_gap_ns=90_000,
    longest_gap_ns=2_000_000,
    switches=1_234,
    switches_missed=4,
    known_until=0,
)
SAYS = "sampled at 11.8 kHz: 1,230 of 1,234 switches were seen"


def exact() -> Timeline:
    return timeline(*convoy())


def sampled() -> Timeline:
    built = exact()
    processes = tuple(dataclasses.replace(process, sampling=SAMPLING) for process in built.processes)
    return dataclasses.replace(built, processes=processes)


def summary(built: Timeline, folder: Path) -> str:
    stream = io.StringIO()
    print_summary(summarise(built), Console(file=stream, width=200))
    return stream.getvalue()


def terminal(built: Timeline, folder: Path) -> str:
    stream = io.StringIO()
    print_report(analyse(built), Console(file=stream, width=200))
    return stream.getvalue()


def html(built: Timeline, folder: Path) -> str:
    write_html(built, analyse(built), folder / "page.html", "page")
    return (folder / "page.html").read_text()


def trace(built: Timeline, folder: Path) -> str:
    write(built, folder / "a.pftrace")
    return (folder / "a.pftrace").read_bytes().decode("latin-1")


@pytest.mark.parametrize("shown", [summary, terminal, html, trace])
def test_says_so(shown: Callable[[Timeline, Path], str], tmp_path: Path) -> None:
    assert SAYS in " ".join(shown(sampled(), tmp_path).split())
    assert "sampled at" not in shown(exact(), tmp_path)


def test_the_trace_says_so_beside_the_name_of_the_gil(tmp_path: Path) -> None:
    assert "GIL (pid 100), sampled" in trace(sampled(), tmp_path)


def test_json_has_the_figures() -> None:
    quality = to_dict(analyse(sampled()))["quality"]
    assert quality["sampled"].startswith(SAYS)
    assert quality["sampling"]["switches_missed"] == 4
    plain = to_dict(analyse(exact()))["quality"]
    assert (plain["sampled"], plain["sampling"]) == ("", None)

"""The drawing of threads over time: what it shows is what the timeline says."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.summary import summarise
from giltrace.reports.html.fragment import MOST_THREADS, of_summary
from giltrace.reports.html.strip import strip
from giltrace.timeline.model import Process, Timeline
from tests.synthetic import make_process, make_timeline

SVG = "{http://www.w3.org/2000/svg}"
HELD, WAITED = "#0a9a74", "#d9480f"


@pytest.fixture
def timeline() -> Timeline:
    return make_timeline(make_process(threads=5, holds=400))


def areas(svg: ElementTree.Element, colour: str) -> list[float]:
    """Per thread the part of its row that a colour covers."""
    found = []
    for row in svg.findall(f"{SVG}g"):
        paths = [one.attrib["d"] for one in row.findall(f"{SVG}path") if one.attrib["fill"] == colour]
        boxes = re.findall(r"h([\d.]+)v(\d+)", "".join(paths))
        found.append(sum(float(wide) * int(high) for wide, high in boxes) / (740 * 12))
    return found


def drawn(process: Process, timeline: Timeline, threads: list[int]) -> ElementTree.Element:
    return ElementTree.fromstring(strip(process, threads, timeline.start, timeline.end))


def test_areas_are_the_shares_of_time(timeline: Timeline) -> None:
    (process,) = timeline.processes
    svg = drawn(process, timeline, list(range(5)))
    length = timeline.end - timeline.start
    for colour, rows in ((HELD, process.holds), (WAITED, process.waits)):
        spent = np.bincount(rows["thread"], (rows["end"] - rows["start"]).astype(float), 5) / length
        assert spent.sum() > 0.1
        assert areas(svg, colour) == pytest.approx(spent.tolist(), abs=0.04)


def test_each_thread_has_a_row_with_its_name(timeline: Timeline) -> None:
    (process,) = timeline.processes
    names = ("a<b>&\"'", "x" * 60, "", "plain", "last")
    threads = tuple(thread._replace(name=name) for thread, name in zip(process.threads, names, strict=True))
    process = replace(process, threads=threads)
    titles = [one.text for one in drawn(process, timeline, [0, 1, 2, 4]).iter(f"{SVG}title")]
    assert titles == ["a<b>&\"'", "x" * 60, f"tid {threads[2].tid}", "last"]


def test_nothing_is_drawn_of_nothing(timeline: Timeline) -> None:
    (process,) = timeline.processes
    assert strip(process, [], timeline.start, timeline.end) == ""
    assert strip(process, [0], timeline.start, timeline.start) == ""


def test_a_notebook_gets_the_busiest_threads_and_few_bytes() -> None:
    timeline = make_timeline(*(make_process(pid, threads=40, holds=20_000) for pid in (100, 200)))
    told = of_summary(summarise(timeline), timeline)
    drawings = re.findall(r"<svg .*?</svg>", told)
    assert [len(re.findall("<title>", one)) for one in drawings] == [MOST_THREADS] * 2
    assert len(told) < 400_000

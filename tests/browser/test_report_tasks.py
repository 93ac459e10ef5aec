"""The report's page of a fleet: what each kind of task lost, to which, and the workers by host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from giltrace.recording.fleet import Part
from giltrace.timeline.fleet import join
from giltrace.timeline.model import Timeline
from tests.browser.chromium import browser
from tests.browser.report_page import Page, opened, rows
from tests.synthetic import make_timeline
from tests.unit.gil_events import MS, PID
from tests.unit.test_tasks import END, merged, scene

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.needs("chromedriver"),
    pytest.mark.skipif(util.find_spec("selenium") is None, reason="selenium is not installed"),
    pytest.mark.timeout(300),
]


def recorded() -> Timeline:
    """Two workers on two hosts, in each a task that waits for another."""
    tasks = merged([(101, "hog-1", 8 * MS, 90 * MS), (102, "<i>step</i>-1", 5 * MS, 95 * MS)])
    one = replace(make_timeline(scene().process(END)), merged=(tasks,))
    parts = [
        (Part(f"part-00{at}", f"w{at}", f"tcp://{host}:1", host, PID, host, at, 5_000), one)
        for at, host in enumerate("ab")
    ]
    return join(replace(make_timeline(), start=0, end=END), parts)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    with browser(tmp_path / "profile", 1400, 1000) as driver:
        yield opened(driver, recorded(), tmp_path)
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def chosen(page: Page) -> Any:
    return page.driver.execute_script("return document.getElementById('subtitle').textContent")


def test_a_fleet_is_told_above_its_processes(page: Page) -> None:
    order = [card.get_attribute("id") for card in page.all("main .card")]
    assert order[:5] == ["fleet", "tasks", "task-blame", "workers", "processes"]
    assert page.find("#fleet h2").text == "2 workers on 2 hosts"
    told = page.find("#fleet .summary").text
    assert told.startswith(
        "Tasks '<i>step</i>' lost 80.0 ms of their 180 ms (44.4%) waiting for the GIL, 100.0% of that"
    )
    assert rows(page, "#tasks")[0].startswith("<i>step</i> 40.0 ms of that <i>step</i>-1 2 180 ms")
    assert rows(page, "#task-blame")[0].endswith("crunch (app.py:1) hog 80.0 ms 2 40.0 ms 2")
    (first, second) = rows(page, "#workers")
    assert (first.split()[:2], second.split()[:2]) == (["a", "w0"], ["b", "w1"])
    assert "w0@a" in chosen(page)
    page.all("#workers button.link")[1].click()
    assert "w1@b" in chosen(page)

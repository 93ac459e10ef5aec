"""The report's page of a program whose threads share a lock: its tables, its lanes, and a selection of both."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from giltrace.analysis.report import analyse
from giltrace.analysis.selection import Selection, select
from giltrace.timeline.model import Timeline
from tests.browser.chromium import browser
from tests.browser.report_page import Page, opened, rows
from tests.synthetic import make_timeline
from tests.unit.gil_events import US
from tests.unit.lock_scenes import TURN, joined, taking_turns

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.needs("chromedriver"),
    pytest.mark.skipif(util.find_spec("selenium") is None, reason="selenium is not installed"),
    pytest.mark.timeout(300),
]

END = 20 * TURN + 100 * US

#: What is counted on the lanes of a selection, in ns: by the words for what was done, and the blocks by their cause.
FIGURES = """
const data = JSON.parse(document.getElementById('data').textContent);
const done = arguments[2];
unpackAll(data).then(() => {
  const process = data.processes[0];
  const [from, to] = [arguments[0] / data.tick_ns, arguments[1] / data.tick_ns];
  const found = withoutOf(data, process, from, to, [...process.thread_lanes.keys()]);
  done({
    where: found.whereabouts.map((row) => [row.site.function, row.doing, row.cause, row.ns]),
    locks: found.lock_blame.map((row) => [row.victim.function, row.waker?.function, row.cause, row.ns]),
  });
});
"""


@pytest.fixture(scope="module")
def recorded() -> Timeline:
    return make_timeline(joined(taking_turns()).process(END))


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("profile"), 1400, 1000) as driver:
        yield driver


@pytest.fixture
def page(driver: Any, recorded: Timeline, tmp_path: Path) -> Iterator[Page]:
    yield opened(driver, recorded, tmp_path)
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_what_outweighs_waiting_comes_first_and_says_what_the_terminal_does(page: Page) -> None:
    order = [card.get_attribute("id") for card in page.all("main .card")]
    places = [
        order.index(name) for name in ("verdict", "timeline", "whereabouts", "locks", "threads", "path", "quality")
    ]
    assert places == sorted(places)
    assert page.find(".badge").text == "Lock-bound"
    assert rows(page, "#whereabouts")[0].startswith("take (app.py:1) worker-* in a lock 201 ms")
    (lock, join) = rows(page, "#locks")
    assert lock.startswith("take (app.py:1) worker-* in a lock worker-*: give (app.py:1) 95.6% of that it was asleep")
    assert "without this lock the whole would be at most 2.01 x as fast" in lock
    assert join.startswith("main (app.py:1) MainThread for a thread's end worker-*")
    assert rows(page, "#path")[0].startswith("work (app.py:1) worker-* asleep or in I/O")


def test_a_block_tells_what_it_is_for_and_who_ended_it(page: Page) -> None:
    first = page.lanes().index("worker-1")
    told = page.hover(0.075, first)
    assert "worker-1: blocked in a lock" in told
    assert "take (app.py:1)" in told
    assert "until worker-2: give (app.py:1)" in told
    assert "the end hung on this" not in told
    told = page.hover(0.125, first)
    assert "off the GIL, sleeps" in told
    assert "work (app.py:1)" in told
    assert "the end hung on this" in told


def test_a_selection_is_counted_as_a_report_counts_it(page: Page) -> None:
    first, last = 3 * TURN + 50 * US, 9 * TURN + 50 * US
    (part,) = select([page.timeline], Selection.of(window=f"{first}ns..{last}ns"))
    (told,) = analyse(part).processes
    found = page.driver.execute_async_script(FIGURES, first, last)
    where = {(row.site.own_function, row.doing, row.cause): row.ns for row in told.whereabouts if row.site.function}
    mine = {(name, doing, cause): ns for name, doing, cause, ns in found["where"] if name}
    for key, ns in where.items():
        if ns > TURN:
            assert mine[key] == pytest.approx(ns, rel=0.03), key
    blocked = sum(row.ns for row in told.lock_blame if row.cause == "lock")
    assert sum(row[3] for row in found["locks"] if row[2] == "lock") == pytest.approx(blocked, rel=0.03)
    assert ("take", "give", "lock") in {tuple(row[:3]) for row in found["locks"]}


def test_the_tables_follow_what_is_selected_and_searched_for(page: Page) -> None:
    page.drag(0.2, 0.4)
    page.wait("#selected")
    assert rows(page, "#whereabouts")[0].startswith("take (app.py:1) worker-* in a lock 40.")
    assert page.all("#path") == []
    page.find("#find").send_keys("MainThread")
    assert all("MainThread" in row for row in rows(page, "#whereabouts"))


def test_the_time_without_the_gil_is_a_flame_graph(page: Page) -> None:
    page.button("without the GIL").click()
    flames = page.flames()
    assert flames[0].startswith("all time without the GIL, ")
    assert any(name.startswith("in a lock, 201 ms") for name in flames)
    assert any(name.startswith("asleep or in I/O, ") for name in flames)

"""The page's tables of processes and of threads, folded and unfolded by a person."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from giltrace.timeline.model import Timeline
from tests.browser.chromium import browser
from tests.browser.report_page import Page, opened
from tests.browser.test_report_html import pytestmark
from tests.synthetic import make_process, make_timeline

__all__ = ["pytestmark"]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("profile"), 1400, 1000) as driver:
        yield driver


@pytest.fixture(scope="module")
def crowded() -> Timeline:
    """A parent, three workers of its that run the same, and one that runs something else and has many threads."""
    names = ["MainThread", *(f"request-{at}" for at in range(14))]
    parent = replace(make_process(pid=100, threads=2, holds=20), cmdline="python serve.py")
    workers = [
        replace(make_process(pid=pid, threads=2, holds=40, seed=pid), ppid=100, cmdline=f"python worker.py --fd {pid}")
        for pid in range(200, 203)
    ]
    busy = replace(make_process(pid=300, names=names, threads=15, holds=900), ppid=100, cmdline="python busy.py")
    return make_timeline(parent, *workers, busy)


@pytest.fixture
def crowd(driver: Any, crowded: Timeline, tmp_path: Path) -> Iterator[Page]:
    yield opened(driver, crowded, tmp_path)
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def rows_of(page: Page, card: str) -> list[str]:
    """The first cells of a card's table."""
    return [cell.text for cell in page.driver.find_elements("css selector", f"{card} tbody td:first-child")]


def test_processes_are_a_tree_in_which_equal_workers_are_one_and_each_can_be_shown(crowd: Page) -> None:
    from selenium.webdriver.support.ui import Select

    assert rows_of(crowd, "#processes") == ["100 serve.py", "300 busy.py", "3 x worker.py --fd *"]
    indents = crowd.driver.execute_script(
        "return [...document.querySelectorAll('#processes td:first-child')].map(cell => cell.style.paddingLeft)"
    )
    assert indents == ["8px", "26px", "26px"]
    crowd.find("#processes .fold").click()
    below = rows_of(crowd, "#processes")[3:]
    assert sorted(below) == [f"{pid} worker.py --fd {pid}" for pid in range(200, 203)]
    crowd.driver.find_elements("css selector", "#processes tr:last-child .link")[0].click()
    assert f"process {below[-1].split()[0]}" in crowd.find("#subtitle").text
    assert Select(crowd.find("#process")).first_selected_option.text.startswith(below[-1].split()[0])
    assert crowd.find("#processes [data-shown]").text.startswith(below[-1].split()[0])
    crowd.find("#processes .fold").click()
    assert len(rows_of(crowd, "#processes")) == 3


def test_threads_of_a_role_share_a_row_that_unfolds(crowd: Page) -> None:
    assert "process 300" in crowd.find("#subtitle").text
    assert sorted(rows_of(crowd, "#threads")) == ["MainThread", "request-* (14)"]
    held = crowd.driver.find_elements("css selector", "#threads tbody tr")
    number = {row.text.split()[0]: row for row in held}
    process = crowd.timeline.processes[-1]
    folded = int(number["request-*"].find_elements("css selector", "td")[1].text.replace(",", ""))
    assert folded == sum(process.threads[int(hold["thread"])].name != "MainThread" for hold in process.holds)
    crowd.find("#threads .fold").click()
    each = [row for row in rows_of(crowd, "#threads") if row.startswith("request-")][1:]
    assert sorted(each) == sorted(f"request-{at}" for at in range(14))
    crowd.find("#threads .fold").click()
    assert len(rows_of(crowd, "#threads")) == 2

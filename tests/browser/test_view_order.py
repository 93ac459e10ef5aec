"""How `giltrace view` lays out a trace of many threads or of several processes, and the details of a wait."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import util
from pathlib import Path

import pytest

from giltrace.exporters.perfetto.trace import write
from tests.browser.test_view import Page, viewed
from tests.synthetic import make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.needs("chromedriver"),
    pytest.mark.skipif(util.find_spec("selenium") is None, reason="selenium is not installed"),
    # Chromium's first start on a busy machine takes its time.
    pytest.mark.timeout(300),
]

THREADS = 200
STACK = [("crunch", "app.py", 5)]

#: The names of the rows of each thread of the process whose name begins with the argument.
ROWS = """
const top = window.app.trace.workspace.children.find(node => node.name.startsWith(arguments[0]));
return top.children.map(thread => thread.children.map(row => row.name));
"""
#: How far down on the screen a row with this title begins.
PLACE = """
return [...document.querySelectorAll('.pf-track__title')].find(
  title => title.textContent.startsWith(arguments[0]))?.getBoundingClientRect().top;
"""
TOP = "return window.app.trace.workspace.children.map(node => node.name)"
PINNED = "return window.app.trace.workspace.pinnedTracks.map(node => node.name)"
#: Selects the slice with the id that is given, as a click on it does, and shows its details.
SELECT = """
const trace = window.app.trace;
trace.selection.selectSqlEvent('slice', arguments[0], {switchToCurrentSelectionTab: true, scrollToSelection: true});
"""
#: The labels of a slice's arguments that are wholly in sight within the panel of details, from top to bottom.
IN_SIGHT = """
const panel = document.querySelector('.pf-details-shell .pf-content')?.getBoundingClientRect();
if (!panel) return [];
const names = [...document.querySelectorAll('.pf-details-shell .pf-tree-left')].map(
  label => [label.innerText.trim().split('\\n')[0], label.getBoundingClientRect()]);
return names.filter(([_, box]) => box.height && box.top >= panel.top && box.bottom <= panel.bottom
    && box.bottom <= innerHeight).map(([name, _]) => name.replace('arrow_drop_down', ''));
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("many")
    names = ["MainThread", *(f"ThreadPoolExecutor-0_{at}" for at in range(THREADS - 1))]
    many = make_process(threads=THREADS, holds=2000, names=names)
    many = with_stacks(many, [STACK], hold=dict.fromkeys(range(len(many.holds)), 0))
    other = make_process(pid=9000, threads=3, seed=2)
    write(make_timeline(many, other), folder / "many.pftrace")
    with viewed(folder / "many.pftrace", folder / "profile") as page:
        yield page


def test_the_gils_groups_come_first(page: Page, tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    assert page.driver.save_screenshot(str(tmp_path / "many.png"))
    names = page.driver.execute_script(TOP)
    assert names == ["GIL (pid 4242)", "GIL (pid 9000)", "CPU Scheduling", "convoy.py 4242", "convoy.py 9000"]
    top = WebDriverWait(page.driver, 60).until(lambda driver: driver.execute_script(PLACE, "GIL (pid 4242)"))
    assert top < 300


def test_each_threads_gil_row_is_above_its_states_and_has_its_name(page: Page) -> None:
    rows = page.driver.execute_script(ROWS, "convoy.py 4242")
    names = ["MainThread", *(f"ThreadPoolExecutor-0_{at}" for at in range(THREADS - 1))]
    assert rows == [[f"GIL of {name} ({4242 + at})", f"{name} {4242 + at}"] for at, name in enumerate(names)]


def test_the_pinned_holders_say_whose_they_are(page: Page) -> None:
    pinned = page.driver.execute_script(PINNED)
    assert sorted(pinned) == [f"holder, pid {pid} convoy.py --threads 4" for pid in (4242, 9000)]


def test_a_waits_culprit_is_in_sight_at_once(page: Page, tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    ((wait,),) = page.query(
        "select id from slice where name = 'waits for GIL' and extract_arg(arg_set_id, 'debug.culprit') is not null"
        " order by dur desc limit 1"
    )
    page.driver.execute_script(SELECT, wait)
    WebDriverWait(page.driver, 60).until(lambda driver: "culprit" in driver.execute_script(IN_SIGHT))
    assert page.driver.save_screenshot(str(tmp_path / "wait.png"))
    labels = page.driver.execute_script(IN_SIGHT)
    at = labels.index("culprit")
    assert labels[at : at + 3] == ["culprit", "culprit share", "culprit let go at"]
    assert labels[at - 1] == "debug"
    assert "No source code found" not in page.driver.find_element("css selector", ".pf-details-shell").text

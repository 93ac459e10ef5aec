"""What is selected on the report's page is what the page tells of, as `giltrace report` would of the same part."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from giltrace.analysis.durations import nanoseconds
from giltrace.analysis.report import analyse
from giltrace.analysis.results import ProcessReport
from giltrace.analysis.selection import Selection, select
from giltrace.timeline.load import load
from giltrace.timeline.model import Timeline
from tests import viewers
from tests.browser.chromium import browser
from tests.browser.report_page import Page, open_page, opened
from tests.browser.test_report_html import pytestmark
from tests.synthetic import make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks
from traces.regenerate import unpack

__all__ = ["pytestmark"]

WINDOW = "0.25s..0.5s"

#: What the page works out for a stretch of time and the lanes of some threads, as figures.
FIGURES = """
const [from, to, names, done] = arguments;
const data = JSON.parse(document.getElementById('data').textContent);
unpackAll(data).then(() => {
  const [process] = data.processes;
  const length = Math.ceil(data.lanes_ns / data.tick_ns);
  const lanes = [...process.thread_lanes.keys()].filter((at) => !names || names.includes(process.threads[at].name));
  const found = selected(data, process, from / data.tick_ns, to === null ? length : to / data.tick_ns, lanes);
  done({waited: found.waited_ns, longest: found.longest_wait_ns, gils: found.gils, rows: found.thread_rows,
    causes: found.findings.map(({cause, ns}) => [cause, ns]),
    blame: found.blame.map(({victim, culprit, ns}) => [[victim, culprit].map(Object.values), ns])});
});
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("profile"), 1400, 1000) as driver:
        yield driver


@pytest.fixture(scope="module", params=["convoy", "gc_storm", "thread_pool_http"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Timeline:
    """A sample, whose waits have lines, samples and causes."""
    return load(unpack(request.param, tmp_path_factory.mktemp("sample")))


@pytest.fixture(scope="module")
def sample(driver: Any, recorded: Timeline, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return opened(driver, recorded, tmp_path_factory.mktemp("page"))


@pytest.fixture
def convoy(driver: Any, tmp_path: Path) -> Iterator[Page]:
    yield opened(driver, load(unpack("convoy", tmp_path)), tmp_path)
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def busiest(timeline: Timeline, selection: Selection) -> ProcessReport:
    """What is reported of the process that the page shows first."""
    pid = max(timeline.processes, key=lambda one: int((one.waits["end"] - one.waits["start"]).sum())).pid
    (part,) = select([timeline], selection)
    return next(one for one in analyse(part).processes if one.pid == pid)


@pytest.mark.parametrize("window", [None, "0.2s..0.4s"])
def test_what_the_lanes_say_of_a_stretch_is_what_a_report_says(sample: Page, window: str | None) -> None:
    told = busiest(sample.timeline, Selection.of(window=window))
    first, last = (0, None) if window is None else (200_000_000, 400_000_000)
    found = sample.driver.execute_async_script(FIGURES, first, last, None)
    waited = sum(thread.waited_ns for thread in told.threads)
    assert found["waited"] == pytest.approx(waited, rel=0.01)
    assert sum(gil["held_ns"] for gil in found["gils"]) == pytest.approx(
        sum(gil.held_ns for gil in told.gils), rel=0.01
    )
    contended = sum(gil.contended_ns for gil in told.gils)
    assert sum(gil["contended_ns"] for gil in found["gils"]) == pytest.approx(contended, rel=0.01)
    assert found["longest"] == pytest.approx(max(thread.wait_max_ns for thread in told.threads), rel=0.01)
    for states in ("waiting", "off-blocked"):
        there = sum(row["states_ns"].get(states, 0) for row in found["rows"])
        assert there == pytest.approx(sum(thread.states_ns[states] for thread in told.threads), rel=0.02)
    # A hold that the window cuts has fewer samples there, and what is a convoy hangs on the whole.
    lines = {(astuple(row.victim), astuple(row.culprit)): row.ns for row in told.blame}
    mine = {(tuple(victim), tuple(culprit)): ns for (victim, culprit), ns in found["blame"]}
    for pair, ns in lines.items():
        if ns > 0.05 * waited:
            assert mine[pair] == pytest.approx(ns, rel=0.15, abs=0.02 * waited), pair
    if window is None:
        causes, counted = {one.cause: one.ns for one in told.findings}, dict(found["causes"])
        for cause in causes.keys() | counted.keys():
            assert counted.get(cause, 0) == pytest.approx(causes.get(cause, 0), abs=0.02 * waited), cause


def test_a_drag_makes_the_page_tell_of_what_it_selects(convoy: Page) -> None:
    before = convoy.find("#blame").text
    place = convoy.find("canvas").rect["y"]
    convoy.drag(0.25, 0.5)
    words = convoy.wait("#selected").text
    start, end = convoy.view()
    assert "waited" in words
    window = convoy.hash("t")
    assert window is not None
    assert [nanoseconds(edge) for edge in window.split("..")] == [
        pytest.approx(start, abs=1e5),
        pytest.approx(end, abs=1e5),
    ]
    assert f"--window {window}" in words
    found = convoy.driver.execute_async_script(FIGURES, start, end, None)
    assert convoy.find(".tile b").text == convoy.duration(found["waited"])
    assert convoy.find("#blame").text != before
    assert not convoy.all("#what-if")
    # The lanes stay under the pointer.
    assert convoy.in_window("canvas") == pytest.approx(place, abs=1)
    convoy.find("#everything").click()
    assert convoy.wait("#verdict")
    assert convoy.find("#blame").text == before


def test_a_thread_is_asked_about_by_its_name_and_told_in_the_link(convoy: Page) -> None:
    convoy.find("#threads .link").click()
    name = convoy.find("#threads .link").text
    words = convoy.wait("#selected").text
    assert f"{name}: threads waited" in words
    assert f"--thread {name}" in words
    assert convoy.hash("thread") == name
    assert [row.text for row in convoy.all("#threads .link")] == [name]
    assert convoy.lanes() == ["GIL holder", name]
    found = convoy.driver.execute_async_script(FIGURES, 0, None, [name])
    assert convoy.find(".tile b").text == convoy.duration(found["waited"])


def test_a_link_leads_to_what_it_says(convoy: Page) -> None:
    from selenium.webdriver.support.ui import Select

    address = convoy.driver.current_url.partition("#")[0]
    convoy.driver.get("about:blank")
    open_page(convoy.driver, f"{address}#t={WINDOW}&role=cpu-*&find=count&own=1")
    words = convoy.wait("#selected").text
    assert words.startswith("Selected\n0.25 s to 0.5 s, cpu-*: threads waited")
    assert "giltrace report page --window 0.25s..0.5s --role 'cpu-*'" in words
    assert Select(convoy.find("#who")).first_selected_option.text == "cpu-*"
    assert convoy.find("#find").get_attribute("value") == "count"
    assert convoy.find("#own").is_selected()
    assert convoy.view() == (250_000_000, 500_000_000)
    # Once it has settled, the words are still those of the link.
    convoy.driver.execute_async_script("setTimeout(arguments[0], 400)")
    assert convoy.hash("t") == WINDOW
    # A link to what is not there is a link to the page.
    convoy.driver.execute_script("location.hash = 't=nonsense&thread=nobody&process=1'")
    assert convoy.wait("#verdict")


def test_what_is_searched_for_is_left_in_the_tables(convoy: Page) -> None:
    rows = [row.text for row in convoy.all("#blame .blame tbody tr")]
    convoy.find("#find").send_keys("STEPS")
    left = [row.text for row in convoy.all("#blame .blame tbody tr")]
    assert 0 < len(left) < len(rows)
    assert all("steps" in row for row in left)
    faint = {flame.get_attribute("aria-label") for flame in convoy.all(".flame .faint")}
    assert any(label.startswith("all waits") for label in faint)
    assert not any(label.startswith("steps") for label in faint)
    convoy.find("#find").send_keys("nobody has this")
    assert "Nothing here" in convoy.find("#blame").text
    assert "No thread's name" in convoy.find("#threads").text


def test_own_code_leaves_libraries_out(driver: Any, tmp_path: Path) -> None:
    library = "/usr/lib/python3.11"
    run = ("Thread.run", f"{library}/threading.py", 982)
    stacks = [
        [("read", f"{library}/socket.py", 706), ("fetch", "/srv/app.py", 35), run],
        [("count", "/srv/app.py", 28), run],
        [("idle", f"{library}/selectors.py", 468), run],
    ]
    places = {0: 0, 1: 1, 2: 1, 3: 2}
    process = with_stacks(make_process(holds=600), stacks, hold=places, wait=places)
    page = opened(driver, make_timeline(process), tmp_path)
    assert any(row.text == "fetch (app.py:35) [read (socket.py:706)]" for row in page.all("#blame .blame summary"))
    assert {name.partition(",")[0] for name in page.flames()} >= {
        "Thread.run (threading.py:982)",
        "read (socket.py:706)",
    }
    page.find("#own").click()
    assert not any(library in name or "threading.py" in name for name in page.flames())
    assert any(name.startswith("(library code)") for name in page.flames())
    told = {row.text for row in page.all("#blame .blame summary")}
    assert told == {"fetch (app.py:35)", "count (app.py:28)", "(library code)"}


def test_flames_are_by_waiter_or_holder_and_from_either_end(convoy: Page) -> None:
    def choose(text: str) -> list[str]:
        convoy.button(text).click()
        return convoy.flames()

    waited = convoy.flames()
    assert waited[0].startswith("all waits")
    assert any(name.startswith("io-") for name in waited)
    held = choose("who held")
    assert held != waited
    assert "count (convoy.py" in "".join(held)
    inner = choose("inverted")
    assert inner[1].startswith("count (convoy.py")
    convoy.drag(0.3, 0.5)
    convoy.wait("#selected")
    assert convoy.flames()[1].startswith("count (convoy.py")


def test_a_table_is_copied_as_it_is_seen(convoy: Page) -> None:
    convoy.driver.execute_script(
        "Object.defineProperty(navigator, 'clipboard', {value: {writeText: async (text) => { window.taken = text; }}})"
    )
    convoy.find("#threads .copy button").click()
    lines = convoy.driver.execute_script("return window.taken").split("\n")
    assert lines[0].split("\t")[:3] == ["thread", "holds", "held"]
    names = [line.split("\t")[0] for line in lines[1:]]
    assert names == [row.text for row in convoy.all("#threads .link")]
    assert {len(line.split("\t")) for line in lines} == {len(lines[0].split("\t"))}


@pytest.fixture
def crowd(driver: Any, tmp_path: Path) -> Page:
    """Two hundred threads of three roles."""
    names = ["MainThread", *(f"request-{at}" for at in range(180)), *(f"pool-1_{at}" for at in range(19))]
    return opened(driver, make_timeline(make_process(names=names, threads=200, holds=6000)), tmp_path)


def test_two_hundred_threads_are_one_screen_and_unfold(crowd: Page) -> None:
    assert sorted(crowd.lanes()) == ["GIL holder", "MainThread", "▸ pool-*_* (19)", "▸ request-* (180)"]
    assert crowd.find("canvas").rect["height"] < 200
    crowd.click_lane(crowd.lanes().index("▸ request-* (180)"))
    assert len(crowd.lanes()) == 1 + 24
    crowd.button("159 lanes more").click()
    assert len(crowd.lanes()) == 1 + 24 + 159
    crowd.button("Fold roles").click()
    assert len(crowd.lanes()) == 4


def test_of_eight_processes_the_one_that_is_chosen_is_told(driver: Any, tmp_path: Path) -> None:
    """Those with equal work share a row of the overview, and unfold; a link leads to the one that it names."""
    from selenium.webdriver.support.ui import Select

    workers = [make_process(pid=9000 + at, threads=3, holds=300, seed=at) for at in range(7)]
    page = opened(driver, make_timeline(make_process(threads=2, holds=60), *workers), tmp_path)
    choice = Select(page.find("#process"))
    unfold = "#processes button[aria-expanded='false']"
    page.find(unfold).click()
    assert len(choice.options) == len(page.all("#processes [data-at]")) == 8
    chosen = next(option for option in choice.options if "9005" in option.text)
    choice.select_by_visible_text(chosen.text)
    assert page.hash("process") == "9005"
    waits = workers[5].waits
    told = page.duration(int((waits["end"] - waits["start"]).sum()))
    assert page.find(".tile b").text == told
    assert len(page.lanes()) == 1 + 3
    address = driver.current_url
    driver.get("about:blank")
    open_page(driver, address)
    assert (page.hash("process"), page.find(".tile b").text) == ("9005", told)
    page.find(unfold).click()
    page.find("#processes [data-at='0'] button").click()
    assert page.hash("process") is None
    assert page.find(".tile b").text != told


@pytest.mark.needs("axe-core")
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("hash", ["", f"#t={WINDOW}&thread=io-0&find=steps"])
def test_people_who_do_not_see_it_can_use_it(convoy: Page, theme: str, hash: str) -> None:
    convoy.driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
    )
    convoy.driver.execute_script(f"location.hash = '{hash}'")
    convoy.wait("#selected" if hash else "#verdict")
    assert barriers(convoy) == ""


@pytest.mark.needs("axe-core")
def test_nor_is_a_crowd_a_barrier(crowd: Page) -> None:
    assert barriers(crowd) == ""
    crowd.button("Unfold roles").click()
    assert barriers(crowd) == ""


def barriers(page: Page) -> str:
    """The rules of axe that a page breaks, and where."""
    page.driver.execute_script(viewers.AXE.read_text())
    found = page.driver.execute_async_script("axe.run().then(arguments[0])")["violations"]
    told = [(one["id"], [(node["target"], node["failureSummary"]) for node in one["nodes"][:3]]) for one in found]
    return json.dumps(told, indent=1) if told else ""


def test_waits_of_many_turns_are_shared_out_as_they_were(crowd: Page) -> None:
    told = busiest(crowd.timeline, Selection())
    found = crowd.driver.execute_async_script(FIGURES, 0, None, None)
    lost = {row.culprit.thread: 0 for row in told.blame}
    mine = dict(lost)
    for row in told.blame:
        lost[row.culprit.thread] += row.ns
    for (_, culprit), ns in found["blame"]:
        mine[culprit[0]] += ns
    assert mine == pytest.approx(lost, rel=0.05, abs=0.01 * sum(lost.values()))

"""The report's page as a person uses it: drawn, silent on the console, and it does what hands and keys ask for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giltrace.analysis.report import analyse
from giltrace.reports.html import write_html
from giltrace.timeline.model import Process, Timeline
from tests.browser.chromium import browser
from tests.browser.report_page import PIXELS, Page, open_page
from tests.synthetic import make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.needs("chromedriver"),
    pytest.mark.skipif(util.find_spec("selenium") is None, reason="selenium is not installed"),
    pytest.mark.timeout(300),
]

STACKS = [
    [("spin", "/srv/convoy.py", 28), ("run", "/usr/lib/threading.py", 982)],
    [("step", "/srv/convoy.py", 35), ("run", "/usr/lib/threading.py", 982)],
]


@pytest.fixture(scope="module")
def recorded() -> Timeline:
    """Two processes, the first of which is busier and has stacks."""
    known = {0: 0, 1: 0, 2: 0, 3: 1}
    busy = with_stacks(make_process(names=["main", "</script>", "b", "io"], holds=600), STACKS, hold=known, wait=known)
    return make_timeline(busy, make_process(pid=5151, threads=2, holds=80, gils=2, seed=2))


@pytest.fixture(scope="module")
def address(recorded: Timeline, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "page.html"
    write_html(recorded, analyse(recorded), path)
    return path.as_uri()


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with browser(tmp_path_factory.mktemp("profile"), 1400, 1000) as driver:
        yield driver


@pytest.fixture
def page(driver: Any, address: str, recorded: Timeline) -> Iterator[Page]:
    """The page as it is just after it was opened, and without errors at the end."""
    open_page(driver, address)
    yield Page(driver, recorded)
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def about(value: float, view: tuple[float, float]) -> Any:
    """A value as exact as the page tells it: to a hundredth of what is in view, which leaves room for whole pixels."""
    return pytest.approx(value, abs=(view[1] - view[0]) / 100)


def test_it_draws_its_lanes(page: Page, tmp_path: Path) -> None:
    page.driver.save_screenshot(str(tmp_path / "page.png"))
    colours, _ = page.drawn(PIXELS)
    assert colours >= 3
    assert "</script>" in page.find("body").text
    assert page.view() == (0, about(page.length, page.view()))


def test_keys_zoom_move_and_reset(page: Page) -> None:
    from selenium.webdriver import Keys

    _, whole = page.drawn(PIXELS)
    first = page.view()
    page.find("#timeline button:last-of-type").send_keys(Keys.TAB)
    assert page.driver.switch_to.active_element == page.canvas
    assert page.driver.execute_script("return getComputedStyle(arguments[0]).outlineStyle", page.canvas) == "solid"
    page.canvas.send_keys("+++")
    closer = page.view()
    span = closer[1] - closer[0]
    assert span == about((first[1] - first[0]) / 1.6**3, first)
    page.canvas.send_keys(Keys.ARROW_RIGHT)
    later = page.view()
    assert later == (about(closer[0] + span / 5, closer), about(closer[1] + span / 5, closer))
    page.canvas.send_keys(Keys.ARROW_LEFT, "-")
    wider = page.view()
    assert wider[1] - wider[0] == about(span * 1.6, wider)
    page.canvas.send_keys("0")
    assert page.view() == first
    page.driver.execute_script("arguments[0].blur()", page.canvas)
    assert page.drawn(PIXELS)[1] == whole


def test_the_wheel_zooms_at_the_pointer(page: Page) -> None:
    first = page.view()
    page.wheel(0.25, -400)
    closer = page.view()
    assert closer[1] - closer[0] < 0.7 * (first[1] - first[0])
    assert closer[0] + 0.25 * (closer[1] - closer[0]) == about(first[0] + 0.25 * (first[1] - first[0]), first)
    page.wheel(0.75, 4000)
    assert page.view() == first


def test_a_wheel_alone_scrolls_the_page_down_and_up(page: Page) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    page.wheel(0.5, -800)
    closer = page.view()
    page.wheel(0.5, 300, control=False)
    WebDriverWait(page.driver, 60).until(lambda d: d.execute_script("return scrollY") > 0)
    page.wheel(0.5, -300, control=False)
    WebDriverWait(page.driver, 60).until(lambda d: d.execute_script("return scrollY") == 0)
    assert page.view() == closer


def test_zooming_stops_at_a_few_ticks_and_stays_where_it_is(page: Page) -> None:
    middle = (page.length) / 2
    for _ in range(12):
        page.wheel(0.5, -2000)
    closest = page.view()
    assert 0 < closest[1] - closest[0] < 10_000
    assert sum(closest) / 2 == pytest.approx(middle, abs=middle / 100)
    page.wheel(0.5, -2000)
    assert page.view() == closest


def test_a_drag_selects_what_comes_into_view(page: Page) -> None:
    from selenium.webdriver import Keys

    first = page.view()
    span = first[1] - first[0]
    page.drag(0.25, 0.5)
    closer = page.view()
    assert closer == (about(0.25 * span, first), about(0.5 * span, first))
    page.hover(0.2, 0)
    assert page.view() == closer, "the pointer still selects after the button was let go"
    page.drag(0.75, 0.25)
    closest = page.view()
    assert closest == (about(0.3125 * span, closer), about(0.4375 * span, closer))
    page.canvas.send_keys(Keys.BACKSPACE)
    assert page.view() == closer
    page.find("button[aria-label^=Back]").click()
    assert page.view() == first
    page.find("button[aria-label^=Back]").click()
    assert page.view() == first


def test_a_selection_can_be_given_up(page: Page) -> None:
    from selenium.webdriver import Keys

    first = page.view()
    page.driver.execute_script("arguments[0].focus()", page.canvas)
    _, untouched = page.drawn(PIXELS)
    x, y = page.place(0.3)
    chain = page.chain().move_to_element_with_offset(page.canvas, round(x), round(y)).click_and_hold()
    chain.move_by_offset(150, 0).move_by_offset(150, 0).perform()
    assert page.drawn(PIXELS)[1] != untouched
    page.chain().send_keys(Keys.ESCAPE).release().perform()
    assert page.view() == first


def test_a_drag_with_shift_moves_what_is_in_view(page: Page) -> None:
    from selenium.webdriver import Keys

    page.wheel(0.5, -800)
    before = page.view()
    page.drag(0.6, 0.4, Keys.SHIFT)
    after = page.view()
    moved = 0.2 * (before[1] - before[0])
    assert after == (about(before[0] + moved, before), about(before[1] + moved, before))
    page.hover(0.2, 0)
    assert page.view() == after, "the pointer still moves the lanes after the button was let go"


def test_two_fingers_pinch_and_one_drags(page: Page) -> None:
    first = page.view()
    page.touch("touchStart", 0.4, 0.5)
    for apart in (0.12, 0.2, 0.3, 0.4):
        page.touch("touchMove", 0.45 - apart / 2, 0.45 + apart / 2)
    page.touch("touchEnd")
    closer = page.view()
    span = closer[1] - closer[0]
    assert span == about((first[1] - first[0]) / 4, first)
    assert closer[0] + 0.45 * span == about(first[0] + 0.45 * (first[1] - first[0]), first)
    page.touch("touchStart", 0.5)
    for share in (0.45, 0.35, 0.3):
        page.touch("touchMove", share)
    page.touch("touchEnd")
    assert page.view() == (about(closer[0] + 0.2 * span, closer), about(closer[1] + 0.2 * span, closer))


def test_a_tap_tells(page: Page) -> None:
    page.touch("touchStart", 0.5)
    page.touch("touchEnd")
    assert page.find("#tip").text.startswith("GIL holder")


def test_a_hold_tells_its_line(page: Page) -> None:
    holds = page.process.holds
    hold = holds[np.argmax(holds["end"] - holds["start"])]
    start, end = int(hold["start"]) - page.start, int(hold["end"]) - page.start
    share = page.zoom_to((start + end) // 2, 10 * (end - start))
    told = page.hover(share, 0).splitlines()
    name = page.process.threads[int(hold["thread"])].name
    assert told[0] == f"GIL holder: {name}"
    assert told[2:] == ["spin (convoy.py:28)", "run (threading.py:982)"]
    assert "spin (convoy.py:28)" in page.hover(share, page.lane(int(hold["thread"])))


def test_a_wait_tells_its_line_and_its_culprits(page: Page) -> None:
    waits = page.process.waits[page.process.waits["thread"] == 3]
    wait = waits[np.argmax(waits["end"] - waits["start"])]
    start, end = int(wait["start"]) - page.start, int(wait["end"]) - page.start
    share = page.zoom_to((start + end) // 2, 10 * (end - start))
    told = page.hover(share, page.lane(3)).splitlines()
    assert told[0] == "io: waits for the GIL"
    assert told[2:4] == ["step (convoy.py:35)", "run (threading.py:982)"]
    assert told[4].startswith("at this instant: ")
    culprits = told[told.index("during the whole wait") + 1 :]
    lost = overlap_by_thread(page.process, wait)
    for name, ns in lost.items():
        share = 100 * ns / (end - start)
        (row,) = [row for row in culprits if row.endswith(f" {name}: spin (convoy.py:28)")]
        assert float(row.split("%")[0]) == pytest.approx(share, abs=0.1)


def overlap_by_thread(process: Process, wait: np.void) -> dict[str, int]:
    """How long which thread had the GIL during a wait (ns)."""
    lost: dict[str, int] = {}
    for hold in process.holds:
        ns = min(int(hold["end"]), int(wait["end"])) - max(int(hold["start"]), int(wait["start"]))
        if ns > 0:
            name = process.threads[int(hold["thread"])].name
            lost[name] = lost.get(name, 0) + ns
    return lost


def test_a_click_enlarges_a_flame_and_the_root_brings_all_back(page: Page) -> None:
    def flames() -> list[tuple[str, int]]:
        rows = page.driver.execute_script(
            "const flames = [...document.querySelectorAll('.flame button')];"
            "return flames.map(flame => [flame.getAttribute('aria-label'), flame.offsetWidth])"
        )
        return [(label.rpartition(",")[0], wide) for label, wide in rows]

    before = flames()
    graph = page.find(".flame").size["width"]
    name, narrow = next((name, wide) for name, wide in before if name == "io")
    assert narrow < 0.9 * graph
    page.find(".flame button[aria-label^='io,']").click()
    enlarged = dict(flames())
    assert enlarged[name] >= graph - 2
    assert enlarged["all waits"] >= graph - 2
    assert set(enlarged) < {name for name, _ in before}
    assert page.driver.switch_to.active_element.get_attribute("aria-label").startswith("io,")
    page.find(".flame button[aria-label^='all waits,']").click()
    assert flames() == before


def test_the_chooser_shows_another_process(page: Page) -> None:
    from selenium.webdriver.support.ui import Select

    _, first = page.drawn(PIXELS)
    choice = Select(page.find("#process"))
    assert [option.text.split()[0] for option in choice.options] == ["4242", "5151"]
    page.wheel(0.5, -800)
    choice.select_by_index(1)
    assert "process 5151" in page.find("#subtitle").text
    start, end = page.view()
    assert (start, end) == (0, about(page.length, (start, end)))
    assert page.drawn(PIXELS)[1] != first
    assert page.hover(0.001, 1).startswith("GIL 1 holder")
    page.wheel(0.0, -400)
    assert page.view()[1] < 0.7 * end
    choice.select_by_index(0)
    assert "process 4242" in page.find("#subtitle").text


def test_what_is_in_view_is_there_as_text(page: Page) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    table = page.find("#in-view")
    page.find("#in-view summary").click()
    # What is unfolded is filled by an event of its own, later than the click.
    rows = WebDriverWait(page.driver, 60).until(lambda _: table.find_elements("css selector", "tbody tr"))
    names = [thread.name for thread in page.process.threads]
    lanes = sorted(range(len(names)), key=page.lane)
    assert [row.text.split()[0] for row in rows] == ["GIL", *(names[thread] for thread in lanes)]
    held = page.process.holds[page.process.holds["thread"] == 1]
    whole = page.length
    share = 100 * int((held["end"] - held["start"]).sum()) / whole
    found = re.search(r"</script> ([\d.]+)%", rows[0].text)
    assert found is not None
    assert float(found[1]) == pytest.approx(share, abs=0.1)
    before = table.text
    page.wheel(0.5, -2000)
    page.view()
    assert table.text != before


@pytest.fixture(scope="module")
def long_names(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The address of a page of long names."""
    stacks = [
        [(f"Connection._wait_for_every_reply_of_{at}", f"/srv/connection_pools_{at}.py", 10 + at)] for at in range(5)
    ]
    known = {at: at for at in range(5)}
    process = make_process(threads=5, names=[f"{name}-handlers" for name in "abcde"])
    timeline = make_timeline(with_stacks(process, stacks, hold=known, wait=known))
    path = tmp_path_factory.mktemp("names") / "page.html"
    write_html(timeline, analyse(timeline), path)
    return path.as_uri()


#: The words of headings that are broken over several lines, a mark within a name being the end of a word.
BROKEN = """
const broken = [];
for (const heading of document.querySelectorAll('th, h2, h3')) {
  const texts = document.createTreeWalker(heading, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    for (const word of texts.currentNode.data.matchAll(/[^ -]+/g)) {
      const range = document.createRange();
      range.setStart(texts.currentNode, word.index);
      range.setEnd(texts.currentNode, word.index + word[0].length);
      if (new Set([...range.getClientRects()].map(box => box.top)).size > 1) broken.push(word[0]);
    }
  }
}
return broken;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1600])
def test_nothing_is_wider_than_the_window_and_no_heading_is_broken_inside_a_word(
    long_names: str, tmp_path: Path, width: int, scheme: str
) -> None:
    with browser(tmp_path / "profile", width, 900) as driver:
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        open_page(driver, long_names)
        assert driver.execute_script("return document.documentElement.dataset.theme") == scheme
        choices = driver.find_elements("css selector", "#blame .choice")
        assert [choice.text for choice in choices] == ["threads", "lines", "functions"]
        for choice in choices:
            choice.click()
            assert driver.execute_script("return document.documentElement.scrollWidth") <= width
            assert driver.execute_script(BROKEN) == []
        assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_button_changes_light_and_dark_and_keeps_the_view(page: Page) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    page.wheel(0.3, -800)
    view, before = page.view(), page.driver.execute_script(background)
    _, light = page.drawn(PIXELS)
    page.find("#theme").click()
    assert page.driver.execute_script(background) != before
    assert page.drawn(PIXELS)[1] != light
    assert page.view() == view
    page.find("#theme").click()
    assert page.driver.execute_script(background) == before

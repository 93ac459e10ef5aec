"""The report's page as a person opens it: drawn, silent on the console, and it zooms."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from giltrace.analysis.report import analyse
from giltrace.reports.html import write_html
from tests.browser.chromium import browser
from tests.synthetic import make_process, make_timeline

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.needs("chromedriver"),
    pytest.mark.skipif(util.find_spec("selenium") is None, reason="selenium is not installed"),
    pytest.mark.timeout(300),
]

#: How many colours the lanes show, and a sum that changes with what they show; read after the next frames are drawn.
DRAWN = """
const done = arguments[0];
requestAnimationFrame(() => requestAnimationFrame(() => {
const canvas = document.querySelector('canvas');
const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
const colours = new Set();
let sum = 0;
for (let at = 0; at < pixels.length; at += 4) {
  const colour = pixels[at] * 65536 + pixels[at + 1] * 256 + pixels[at + 2];
  colours.add(colour);
  sum = (sum * 31 + colour) % 1000000007;
}
done([colours.size, sum]);
}));
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("page")
    timeline = make_timeline(make_process(names=["main", "</script>", "b", "io"]))
    write_html(timeline, analyse(timeline), folder / "page.html")
    with browser(folder / "profile", 1400, 1000) as driver:
        driver.get((folder / "page.html").as_uri())
        yield driver


def test_it_draws_its_lanes_without_a_word_on_the_console(driver: Any, tmp_path: Path) -> None:
    driver.save_screenshot(str(tmp_path / "page.png"))
    assert [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"] == []
    colours, _ = driver.execute_async_script(DRAWN)
    assert colours >= 3
    assert "</script>" in driver.execute_script("return document.body.innerText")


def test_keys_zoom_and_reset(driver: Any) -> None:
    press = (
        "const canvas = document.querySelector('canvas');"
        "canvas.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}));"
    )
    driver.execute_script(press, "0")
    _, whole = driver.execute_async_script(DRAWN)
    for _ in range(3):
        driver.execute_script(press, "+")
    _, closer = driver.execute_async_script(DRAWN)
    driver.execute_script(press, "0")
    _, again = driver.execute_async_script(DRAWN)
    assert closer != whole
    assert again == whole


def test_the_button_changes_light_and_dark(driver: Any) -> None:
    background = "return getComputedStyle(document.body).backgroundColor"
    before = driver.execute_script(background)
    driver.execute_script("document.getElementById('theme').click()")
    after = driver.execute_script(background)
    driver.execute_script("document.getElementById('theme').click()")
    assert after != before
    assert driver.execute_script(background) == before

"""The report's page in a browser, with a hand on its mouse, its keys and its touch screen."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from giltrace.analysis.report import analyse
from giltrace.reports.html import write_html
from giltrace.timeline.model import Process, Timeline

#: Runs a script after the next frames are drawn, when what was done is to be seen.
DRAWN = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done((() => {%s})())));"

#: How many colours the lanes show, and a sum that changes with what they show.
PIXELS = """
const canvas = document.querySelector('canvas');
const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
const colours = new Set();
let sum = 0;
for (let at = 0; at < pixels.length; at += 4) {
  const colour = pixels[at] * 65536 + pixels[at + 1] * 256 + pixels[at + 2];
  colours.add(colour);
  sum = (sum * 31 + colour) % 1000000007;
}
return [colours.size, sum];
"""

#: Where the lanes begin in their canvas, and how far apart they are (CSS pixels).
LEFT, HEAD, STEP = 148, 24, 25


@dataclass(frozen=True)
class Page:
    driver: Any
    timeline: Timeline

    @property
    def process(self) -> Process:
        """The one that is shown first."""
        return self.timeline.processes[0]

    @property
    def start(self) -> int:
        """Where the lanes begin, in ns."""
        return self.timeline.recorded[0]

    @property
    def length(self) -> int:
        """How long they are, in ns."""
        return self.timeline.end - self.start

    @property
    def canvas(self) -> Any:
        return self.find("canvas")

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def drawn(self, script: str) -> Any:
        return self.driver.execute_async_script(DRAWN % script)

    def view(self) -> tuple[float, float]:
        """What the page says is in view, in ns from the start."""
        text = self.drawn("return document.getElementById('view').textContent")
        found = re.fullmatch(r"In view: (\S+) (m?s) to (\S+) m?s \(.*\)", text)
        assert found is not None, text
        size = {"s": 1e9, "ms": 1e6}[found[2]]
        return float(found[1]) * size, float(found[3]) * size

    def place(self, share: float, lane: int = 0) -> tuple[float, float]:
        """Where a share of the view is, in a lane, from the middle of the canvas."""
        wide, high = self.driver.execute_script(
            "const c = arguments[0]; return [c.clientWidth, c.clientHeight]", self.canvas
        )
        return LEFT + share * (wide - LEFT) - wide / 2, HEAD + (lane + 0.4) * STEP - high / 2

    def all(self, selector: str) -> list[Any]:
        return list(self.driver.find_elements("css selector", selector))

    def button(self, text: str) -> Any:
        return next(button for button in self.all("button") if button.text == text)

    def wait(self, selector: str) -> Any:
        """What comes to be there: the page follows what is in view once that is at rest."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, 60).until(lambda _: self.all(selector))[0]

    def hash(self, name: str) -> str | None:
        """A part of the link to what is selected."""
        found: str | None = self.driver.execute_script(
            "return new URLSearchParams(location.hash.slice(1)).get(arguments[0])", name
        )
        return found

    def duration(self, ns: float) -> str:
        return str(self.driver.execute_script("return duration(arguments[0])", ns))

    def in_window(self, selector: str) -> float:
        """How far below the window's upper edge something is (CSS pixels)."""
        return float(self.driver.execute_script("return arguments[0].getBoundingClientRect().top", self.find(selector)))

    def lanes(self) -> list[str]:
        """The names of the lanes, as the table of what is in view has them."""
        from selenium.webdriver.support.ui import WebDriverWait

        if not self.find("#in-view").get_attribute("open"):
            self.find("#in-view summary").click()
        WebDriverWait(self.driver, 60).until(lambda _: self.all("#in-view tbody tr"))
        self.drawn("return 0")
        return [cell.text for cell in self.all("#in-view tbody td:first-child")]

    def flames(self) -> list[str]:
        """What the flames are called, and how long each is."""
        return [flame.get_attribute("aria-label") for flame in self.all(".flame button")]

    def click_lane(self, lane: int) -> None:
        """Click on the name of a lane."""
        _, y = self.place(0, lane)
        wide = self.driver.execute_script("return arguments[0].clientWidth", self.canvas)
        self.chain().move_to_element_with_offset(self.canvas, round(40 - wide / 2), round(y)).click().perform()

    def lane(self, thread: int) -> int:
        """Of a thread of the first process: those that waited longest are first, below the GIL's."""
        waits = self.process.waits
        lost = np.bincount(waits["thread"], waits["end"] - waits["start"], len(self.process.threads))
        return self.process.gils + int(np.argsort(-lost, kind="stable").tolist().index(thread))

    def wheel(self, share: float, by: int, *, control: bool = True) -> None:
        from selenium.webdriver import Keys
        from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

        x, y = self.place(share)
        origin = ScrollOrigin.from_element(self.canvas, round(x), round(y))
        chain = self.chain().key_down(Keys.CONTROL) if control else self.chain()
        chain.scroll_from_origin(origin, 0, by)
        (chain.key_up(Keys.CONTROL) if control else chain).perform()

    def drag(self, since: float, until: float, *keys: str) -> None:
        """With the mouse over the first lane, between two shares of the view."""
        (x, y), (end, _) = self.place(since), self.place(until)
        chain = self.chain().move_to_element_with_offset(self.canvas, round(x), round(y))
        for key in keys:
            chain.key_down(key)
        half = round((end - x) / 2)
        chain.click_and_hold().move_by_offset(half, 0).move_by_offset(round(end - x) - half, 0).release()
        for key in keys:
            chain.key_up(key)
        chain.perform()

    def chain(self) -> Any:
        from selenium.webdriver import ActionChains

        return ActionChains(self.driver)

    def hover(self, share: float, lane: int) -> str:
        """Point at a lane and return what the page tells."""
        x, y = self.place(share, lane)
        self.chain().move_to_element_with_offset(self.canvas, round(x), round(y)).perform()
        return str(self.find("#tip").text)

    def zoom_to(self, time: int, span: int) -> float:
        """Turn the wheel over an instant (ns from the start) until less than `span` is in view; where it is then."""
        for _ in range(100):
            start, end = self.view()
            share = (time - start) / (end - start)
            if end - start < span:
                return share
            self.wheel(share, -300)
        raise AssertionError(f"the wheel does not zoom to {span} ns: {self.view()} is in view")

    def touch(self, kind: str, *xs: float) -> None:
        """Fingers on the first lane, at shares of the view."""
        box = self.driver.execute_script("return arguments[0].getBoundingClientRect().toJSON()", self.canvas)
        points = []
        for number, share in enumerate(xs):
            x, y = self.place(share)
            points.append({"x": box["x"] + box["width"] / 2 + x, "y": box["y"] + box["height"] / 2 + y, "id": number})
        self.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})


def open_page(driver: Any, address: str) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    driver.get(address)
    WebDriverWait(driver, 60).until(lambda d: d.execute_script("return document.getElementById('view')?.textContent"))


def opened(driver: Any, timeline: Timeline, folder: Path) -> Page:
    """The page of a timeline, which is written into the folder."""
    write_html(timeline, analyse(timeline), folder / "page.html")
    open_page(driver, (folder / "page.html").as_uri())
    return Page(driver, timeline)


def rows(page: Page, card: str) -> list[str]:
    """What the rows of a card's table say."""
    return [" ".join(row.text.split()) for row in page.all(f"{card} tbody tr")]

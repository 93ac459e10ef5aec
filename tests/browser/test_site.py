"""The documentation's site in a browser: every page is shown without an error and asks nobody but its own server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import browser

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.needs("chromedriver"),
    pytest.mark.skipif(
        any(util.find_spec(name) is None for name in ("selenium", "sphinx", "myst_parser", "furo")),
        reason="needs selenium and the extra `docs`",
    ),
    # Chromium's first start on a busy machine takes its time.
    pytest.mark.timeout(300),
]

ASKED = "return performance.getEntriesByType('resource').map(entry => entry.name)"
UNSEEN = "return [...document.images].filter(image => !image.complete || !image.naturalWidth).map(image => image.src)"


class Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the test's output is not a log."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from docs.site.__main__ import build

    folder = tmp_path_factory.mktemp("site")
    assert build(folder) == 0
    return folder


@pytest.fixture(scope="module")
def origin(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(site))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_every_page_is_shown_and_asks_only_its_server(site: Path, origin: str, tmp_path: Path) -> None:
    pages = sorted(str(path.relative_to(site)) for path in site.rglob("*.html"))
    assert len(pages) > 30
    with browser(tmp_path / "profile", 1300, 1000) as driver:
        for page in pages:
            driver.get(origin + page)
            assert [name for name in driver.execute_script(ASKED) if not name.startswith(origin)] == [], page
            assert driver.execute_script(UNSEEN) == [], page
            log = [entry["message"] for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
            assert [message for message in log if "/favicon.ico" not in message] == [], page


def test_the_search_finds_a_command(origin: str, tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    with browser(tmp_path / "profile", 1300, 1000) as driver:
        driver.get(f"{origin}search.html?q=compare")
        found = "return [...document.querySelectorAll('.search li a')].map(link => link.href)"
        WebDriverWait(driver, 60).until(
            lambda d: any(link.partition("?")[0].endswith("/commands/compare.html") for link in d.execute_script(found))
        )

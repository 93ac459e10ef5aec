"""`giltrace view` as a person uses it: the real bundled UI, opened at the address that it prints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import pytest

from giltrace.exporters.perfetto.cut import SLICE, TRACK
from giltrace.timeline.load import load
from giltrace.timeline.model import Timeline
from giltrace.views.moment import WORST, Moment, Waits
from tests.browser.chromium import browser
from tests.browser.test_perfetto_ui import QUERY, TRACKS_OF

pytestmark = [
    pytest.mark.needs("chromium"),
    pytest.mark.needs("chromedriver"),
    pytest.mark.skipif(util.find_spec("selenium") is None, reason="selenium is not installed"),
    # Chromium's first start on a busy machine takes its time.
    pytest.mark.timeout(300),
]

#: What the page wants from elsewhere and is refused, or that a browser no longer knows: all that may be on the console.
REFUSED = ("is_internal_user", "127.0.0.1:9001/status", "Content-Security-Policy directive 'navigate-to'")

#: Two threads that count, in each of two processes.
TWO_PROCESSES = """
import os, threading
child = os.fork()
threads = [threading.Thread(target=lambda: [None for _ in range(3_000_000)]) for _ in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
if child: os.waitpid(child, 0)
"""

SHOWN = """
const span = window.app.trace.timeline.visibleWindow.toTimeSpan();
return [Number(span.start - window.app.trace.traceInfo.start), Number(span.end - window.app.trace.traceInfo.start)];
"""
NODES = "return window.app.trace.workspace.children.map(node => [node.name, node.collapsed])"


@dataclass(frozen=True)
class Page:
    driver: Any

    def query(self, sql: str) -> list[list[Any]]:
        rows = self.driver.execute_async_script(QUERY, sql)
        assert isinstance(rows, list), rows
        return rows

    def tracks(self, of: str) -> list[str]:
        return [name for name, _ in self.driver.execute_script(TRACKS_OF, of)]

    def severe(self) -> list[str]:
        log = [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] == "SEVERE"]
        return [message for message in log if not any(word in message for word in REFUSED)]

    def shown(self) -> tuple[int, int]:
        """What is in sight, in ns from the begin of the trace."""
        start, end = self.driver.execute_script(SHOWN)
        return start, end


@contextmanager
def viewed(name: Path, profile: Path, *options: str) -> Iterator[Page]:
    """Run `giltrace view` and open what it prints; then close the page, and end the command as Ctrl-C does."""
    from selenium.webdriver.support.ui import WebDriverWait

    command = [sys.executable, "-m", "giltrace", "view", str(name), "--print-url", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            address = process.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), process.stderr.read()
            with browser(profile, 1800, 1000) as driver:
                driver.get(address)
                waiting = WebDriverWait(driver, 120)
                waiting.until(lambda d: d.execute_script("return !!window.app?.trace && !window.app.isLoadingTrace"))
                waiting.until(lambda d: d.execute_script("return window.app.trace.workspace.pinnedTracks.length > 0"))
                yield Page(driver)
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        assert "ssh -L" in process.stderr.read()
        assert process.stdout.read() == ""


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recording")
    command = [sys.executable, "-m", "giltrace", "record", "--light", "--python", sys.executable, "-o"]
    targets = {"x": ("convoy", "--steps", "40"), "two": ("-c", TWO_PROCESSES), "calm": ("-c", "sum(range(10**6))")}
    for name, target in targets.items():
        done = subprocess.run([*command, str(folder / name), *target], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder / "x"


@pytest.fixture(scope="module")
def timeline(recording: Path) -> Timeline:
    return load(recording.with_suffix(".giltrace"))


@pytest.fixture(scope="module")
def page(recording: Path) -> Iterator[Page]:
    with viewed(recording, recording.parent / "profile") as page:
        yield page


def moment(timeline: Timeline, where: str | int) -> Moment:
    return Waits.of_timeline(timeline).at(where)


def check_shown(page: Page, timeline: Timeline, want: Moment) -> None:
    first, last = timeline.recorded
    assert page.query("select start_ts, end_ts from trace_bounds") == [[first, last]]
    # The UI keeps what it shows as a floating point number of a wide range.
    assert page.shown() == pytest.approx((want.start - first, want.end - first), abs=1000)


def test_it_opens_at_the_worst_contention_without_errors(page: Page, timeline: Timeline, tmp_path: Path) -> None:
    assert page.driver.save_screenshot(str(tmp_path / "view.png"))
    assert page.severe() == []
    trace = "const trace = window.app.trace; return "
    assert page.driver.execute_script(f"{trace} [trace.traceInfo.importErrors, trace.loadingErrors]") == [0, []]
    assert page.driver.execute_script("return document.querySelectorAll('.pf-modal-dialog').length") == 0
    check_shown(page, timeline, moment(timeline, WORST))


def test_the_holder_is_pinned_and_only_the_process_is_unfolded(page: Page, timeline: Timeline) -> None:
    (process,) = timeline.processes
    pinned = page.driver.execute_script("return window.app.trace.workspace.pinnedTracks.map(node => node.name)")
    assert pinned == ["holder"]
    folded = dict(page.driver.execute_script(NODES))
    assert not folded[f"GIL (pid {process.pid})"]
    assert not folded[f"convoy.py {process.pid}"]
    others = [name for name in folded if name.split()[-1].isdigit() and str(process.pid) not in name]
    assert all(folded[name] for name in others)


def test_all_kinds_of_tracks_are_there_by_sql(page: Page, timeline: Timeline) -> None:
    (process,) = timeline.processes
    if process.has_sched:
        ran = {int(core) for core in process.runs["core"]}
        assert {core for (core,) in page.query("select distinct cpu from sched")} >= ran
        assert page.tracks("CPU Scheduling")
    assert page.tracks(f"GIL (pid {process.pid})")[:3] == ["holder", "threads waiting for the GIL", "switch requests"]
    sql = (
        "select count(distinct utid) from thread_track join slice on track_id = thread_track.id where category = 'gil'"
    )
    assert page.query(sql) == [[len({*process.holds["thread"].tolist(), *process.waits["thread"].tolist()})]]
    assert page.query("select count() > 10 from flow") == [[1]]
    sql = "select max(value) from counter c join track k on c.track_id = k.id where k.name glob 'threads waiting*'"
    assert page.query(sql)[0][0] >= 2
    names = {thread.name for thread in process.threads}
    assert {"MainThread", "io-0", "cpu-0", "cpu-1"} <= names
    assert names <= {name for (name,) in page.query("select name from thread where name is not null")}


def test_nothing_was_asked_of_anybody_else(page: Page) -> None:
    entries = "return performance.getEntriesByType('resource').map(entry => [entry.name, entry.transferSize])"
    asked = page.driver.execute_script(entries)
    own = page.driver.execute_script("return location.origin")
    assert {name for name, size in asked if size > 0 and not name.startswith((own, "blob:", "data:"))} == set()
    assert any(name.endswith("/x.pftrace") for name, _ in asked)


def test_a_wait_by_its_id_is_in_sight_and_selected(recording: Path, timeline: Timeline, tmp_path: Path) -> None:
    (process,) = timeline.processes
    wait = process.waits[len(process.waits) // 2]
    name = f"{process.threads[wait['thread']].tid}@{wait['start']}"
    with viewed(recording, tmp_path / "profile", "--at", name) as page:
        start, end = page.shown()
        begin = int(wait["start"]) - timeline.recorded[0]
        length = int(wait["end"] - wait["start"])
        assert start <= begin < begin + length <= end
        assert end - start < 10 * length + 2_000_000
        selected = "const chosen = window.app.trace.selection.selection; return [chosen.kind, Number(chosen.eventId)]"
        kind, slice_id = page.driver.execute_script(selected)
        assert kind == "track_event"
        found = page.query(f"select name, ts, dur from slice where id = {slice_id}")
        assert found == [["waits for GIL", int(wait["start"]), int(wait["end"] - wait["start"])]]


def test_a_cut_trace_says_so_and_opens_at_a_time(recording: Path, timeline: Timeline, tmp_path: Path) -> None:
    options = ("--top-waits", "3", "--window", "100ms..150ms", "--at", "125ms")
    with viewed(recording, tmp_path / "profile", *options) as page:
        assert page.severe() == []
        check_shown(page, timeline, moment(timeline, 125_000_000))
        pinned = page.driver.execute_script("return window.app.trace.workspace.pinnedTracks.map(node => node.name)")
        assert sorted(pinned) == ["holder", TRACK]
        ((slices, length),) = page.query(f"select count(), sum(dur) from slice where name = '{SLICE}'")
        assert 2 <= slices <= 5
        first, last = timeline.recorded
        assert 0 < length < last - first
        (process,) = timeline.processes
        ((waits,),) = page.query("select count() from slice where name = 'waits for GIL'")
        assert 3 <= waits < len(process.waits)


def test_a_trace_alone_opens_where_sql_finds_the_worst(recording: Path, timeline: Timeline, tmp_path: Path) -> None:
    pytest.importorskip("wasmtime")
    alone = tmp_path / "alone.pftrace"
    os.link(recording.with_suffix(".pftrace"), alone)
    with viewed(alone, tmp_path / "profile") as page:
        check_shown(page, timeline, moment(timeline, WORST))


def test_of_several_processes_the_one_at_hand_is_unfolded(recording: Path, tmp_path: Path) -> None:
    timeline = load(recording.with_name("two.giltrace"))
    assert len(timeline.processes) == 2
    name = recording.with_name("two")
    last = timeline.processes[-1]
    at = f"{last.threads[last.waits[0]['thread']].tid}@{last.waits[0]['start']}"
    with viewed(name, tmp_path / "profile", "--at", at) as page:
        assert page.driver.save_screenshot(str(tmp_path / "two.png"))
        want = moment(timeline, at)
        folded = dict(page.driver.execute_script(NODES))
        groups = {
            p.pid: [name for name in folded if name.endswith((f" {p.pid}", f" {p.pid})"))] for p in timeline.processes
        }
        assert all(len(names) == 2 for names in groups.values())
        assert {pid for pid, names in groups.items() if not any(folded[name] for name in names)} == {want.pid}


def test_without_waits_all_is_shown_and_the_process_unfolded(recording: Path, tmp_path: Path) -> None:
    timeline = load(recording.with_name("calm.giltrace"))
    (process,) = timeline.processes
    assert (len(process.waits), len(process.holds) > 0) == (0, True)
    with viewed(recording.with_name("calm"), tmp_path / "profile") as page:
        first, last = timeline.recorded
        check_shown(page, timeline, Moment(first, last, process.pid))
        folded = dict(page.driver.execute_script(NODES))
        groups = [name for name in folded if name.endswith((f" {process.pid}", f" {process.pid})"))]
        assert [folded[name] for name in groups] == [False, False]

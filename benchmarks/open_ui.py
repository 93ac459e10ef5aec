"""How long until the bundled Perfetto UI shows a trace? Prints a table; the target is 1 M track events in 10 s.

Needs Chromium, its driver and selenium. Usage: python benchmarks/open_ui.py [--holds 80000] [--threads 20]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.export import track_events
from giltrace.analysis.measure.worst import chosen_stretches
from giltrace.exporters.perfetto import trace as perfetto
from giltrace.timeline.cut import cut
from giltrace.timeline.model import Timeline
from giltrace.views.moment import WORST, Waits
from giltrace.views.perfetto_ui import page_address
from giltrace.views.server import TraceServer
from tests.browser.chromium import browser
from tests.synthetic import make_process, make_timeline

_READY = (
    "return !!window.app?.trace && !window.app.isLoadingTrace && window.app.trace.workspace.pinnedTracks.length > 0"
)


def opening(trace: Path, timeline: Timeline, folder: Path) -> float:
    """Seconds from asking for the page to the trace being shown where the view begins; the browser runs already."""
    from selenium.webdriver.support.ui import WebDriverWait

    with TraceServer(trace, "x", gone_after=3600) as server, browser(folder / trace.stem, 1800, 1000) as driver:
        thread = threading.Thread(target=server.run)
        thread.start()
        address = page_address(server.page_url, server.trace_url, Waits.of_timeline(timeline).at(WORST))
        begin = time.perf_counter()
        driver.get(address)
        WebDriverWait(driver, 300, poll_frequency=0.05).until(lambda d: d.execute_script(_READY))
        seconds = time.perf_counter() - begin
        server.stop()
        thread.join()
    return seconds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--holds", type=int, default=80_000)
    parser.add_argument("--threads", type=int, default=20)
    options = parser.parse_args()
    process = make_process(threads=options.threads, holds=options.holds, spans=options.holds // options.threads)
    whole = make_timeline(process)
    cases = {
        "a hundredth of it": make_timeline(make_process(threads=options.threads, holds=options.holds // 100)),
        "whole": whole,
        "--top-waits 20": cut(whole, chosen_stretches(whole, [], 20)),
    }
    print(f"{'trace':18} {'track events':>12} {'switches':>9} {'MB':>7} {'s to write':>10} {'s to open':>9}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number, (title, timeline) in enumerate(cases.items()):
            path = folder / f"{number}.pftrace"
            begin = time.perf_counter()
            perfetto.write(timeline, path)
            written = time.perf_counter() - begin
            events = sum(track_events(each) for each in timeline.processes)
            runs = sum(len(each.runs) for each in timeline.processes)
            opened = opening(path, timeline, folder)
            size = path.stat().st_size / 1e6
            print(f"{title:18} {events:12,} {runs:9,} {size:7.1f} {written:10.2f} {opened:9.1f}", flush=True)


if __name__ == "__main__":
    main()

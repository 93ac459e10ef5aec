"""How long does a Perfetto export take? Prints a table; the target is 1 M track events in at most 0.5 s.

Usage: python benchmarks/export.py [--holds 200000] [--threads 20] [--repeat 5]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from giltrace.exporters import perfetto
from giltrace.exporters._gil_group import waiting_counts
from giltrace.recording.events import Spans
from giltrace.timeline.model import RUN, Process, Timeline
from tests.synthetic import make_process, make_timeline


def track_events(process: Process) -> int:
    """Count the track event packets that a process becomes: each slice is two, on each track that shows it."""
    slices = 2 * len(process.holds) + len(process.waits) + sum(len(spans.spans) for spans in process.spans)
    counters = sum(len(waiting_counts(process, gil)[0]) for gil in range(process.gils))
    return 2 * slices + counters + len(process.switch_requests)


def best(action: Callable[[], None], repeat: int) -> float:
    """Return the shortest of some runs, in seconds."""
    times = []
    for _ in range(repeat):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return min(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--holds", type=int, default=130_000)
    parser.add_argument("--threads", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    process = make_process(threads=options.threads, holds=options.holds, spans=options.holds // options.threads)
    nothing: tuple[Spans, ...] = ()
    bare = replace(process, runs=np.empty(0, RUN), spans=nothing)
    cases: dict[str, Timeline] = {
        "GIL tracks": make_timeline(bare),
        "GIL tracks + spans": make_timeline(replace(bare, spans=process.spans)),
        "GIL tracks + spans + sched": make_timeline(process),
    }
    print(f"{'case':28} {'track events':>12} {'switches':>9} {'s':>7} {'ns/event':>9} {'s per 1 M':>9} {'MB':>7}")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out.pftrace"
        for name, timeline in cases.items():
            seconds = best(lambda timeline=timeline: perfetto.write(timeline, path), options.repeat)  # type: ignore[misc]
            events = sum(track_events(each) for each in timeline.processes)
            runs = sum(len(each.runs) for each in timeline.processes)
            size = path.stat().st_size / 1e6
            per = seconds / events
            print(f"{name:28} {events:12,} {runs:9,} {seconds:7.3f} {per * 1e9:9.1f} {per * 1e6:9.3f} {size:7.1f}")


if __name__ == "__main__":
    main()

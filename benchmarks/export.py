"""How long does an export take? Prints a table for Perfetto, whose target is 1 M track events in at most 0.5 s, and one
for all formats: time, size and peak memory per event of the recording (a request, wait, acquire or release).

Usage: python benchmarks/export.py [--holds 130000] [--threads 20] [--repeat 5] [--events 1000000]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parents[1]))

from giltrace.exporters import EXPORTERS, find
from giltrace.exporters._relations import waiting_counts
from giltrace.exporters.perfetto import trace as perfetto
from giltrace.recording.events import Spans
from giltrace.timeline.model import RUN, Array, Process, Stacks, Timeline
from tests.synthetic import make_process, make_timeline
from tests.unit.analysis_stacks import stack_table


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


def with_places(process: Process, stacks: int = 500, depth: int = 12) -> Process:
    """Give every hold and wait one of some stacks, as a real recording has them."""
    random = np.random.default_rng(7)
    frames = [
        [(f"function_{at % 97}", f"/srv/app/module_{at % 13}.py", at) for at in row]
        for row in random.integers(1, 900, (stacks, depth)).tolist()
    ]
    table = stack_table(frames)

    def some(rows: Array) -> npt.NDArray[np.int32]:
        return random.integers(0, stacks, len(rows)).astype(np.int32)

    held = some(process.holds)
    return replace(process, stacks=Stacks(table, held, held, some(process.waits), some(process.switch_requests)))


def compare_formats(events: int, threads: int) -> None:
    """Export one recording to every format, each in a process of its own; ratios are to Perfetto's."""
    print(f"{'format':12} {'s':>7} {'s / perfetto':>12} {'ns/event':>9} {'MB':>7} {'peak MB above the timeline':>27}")
    first = 0.0
    for exporter in EXPORTERS:
        command = [sys.executable, __file__, "--one", exporter.name, "--events", str(events), "--threads", str(threads)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, size, peak = map(float, done.stdout.split())
        first = first or seconds
        per = seconds / events * 1e9
        print(f"{exporter.name:12} {seconds:7.2f} {seconds / first:12.2f} {per:9.0f} {size:7.1f} {peak:27.0f}")


def export_once(name: str, events: int, threads: int) -> None:
    """Export to one format; print seconds, MB written, and MB that the peak of memory was above the timeline's."""
    made = with_places(make_process(threads=threads, holds=events // 3))
    # A wait stands for its request and, with the hold that it led to, for three events in all.
    timeline = make_timeline(replace(made, spans=()))
    exporter = find(name)
    assert exporter is not None
    exporter.stream()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.perf_counter()
        exporter.write(timeline, path)
        seconds = time.perf_counter() - begin
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        files = list(path.iterdir()) if path.is_dir() else [path]
        print(seconds, sum(file.stat().st_size for file in files) / 1e6, peak / 1024)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--holds", type=int, default=130_000)
    parser.add_argument("--threads", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--events", type=int, default=1_000_000, help="GIL events of the recording for all formats")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        export_once(options.one, options.events, options.threads)
        return
    compare_formats(options.events, options.threads)
    print()
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

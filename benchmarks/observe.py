"""How well observing from outside does against the exact record of the same run, and what it does to the target.

    python benchmarks/observe.py [--workload convoy] [--python PATH ...] [--interval US ...] [--pause]

Each line is one run of a workload that is recorded exactly (preloaded) and observed at the same time. Printed are the
pace, the switches seen, the largest difference of any thread's held share (in points), the waits per second of the
whole process against the exact ones, and the CPU used. With --pause, a target that does nothing but read its clock
tells the largest gap between two readings in windows of 25 ms, observed and unobserved, by turns.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from giltrace import native
from giltrace.collectors.base import Session
from giltrace.collectors.observe import ObserveCollector, Observer
from giltrace.native.observe import End
from giltrace.recording.clock_file import append_pair
from giltrace.recording.gil import read_processes
from giltrace.timeline.build import build_timeline
from giltrace.timeline.model import Process

WORKLOADS = Path(__file__).resolve().parents[1] / "workloads"

#: In each of 40 windows of 25 ms: the largest gap between two readings of the clock.
CLOCK_READER = """
import sys, time
clock = time.perf_counter_ns
print("ready", flush=True)
sys.stdin.readline()
for window in range(40):
    most, last = 0, clock()
    end = last + 25_000_000
    while last < end:
        now = clock()
        if now - last > most:
            most = now - last
        last = now
    print(most, flush=False)
"""


@dataclass(frozen=True)
class Use:
    """What a recording says of a thread within a window: its held share and waits per second."""

    held: float
    waits: float


def timeline_of(folder: Path) -> Process:
    """The one process of a bare recording."""
    processes, error = read_processes(folder)
    timeline = build_timeline(
        processes, None, [], start=processes[0].start, end=processes[0].start, realtime_offset=0, boottime_offset=0,
        clock_error_ns=error, machine={}, collectors=[],
    )  # fmt: skip
    return timeline.processes[0]


def use(process: Process, start: int, end: int) -> dict[int, Use]:
    """By tid, what happened within the window."""
    found = {}
    for index, thread in enumerate(process.threads):
        holds = process.holds[process.holds["thread"] == index]
        inside = np.minimum(holds["end"], end) - np.maximum(holds["start"], start)
        waits = process.waits[process.waits["thread"] == index]
        ended = np.count_nonzero((waits["end"] > start) & (waits["end"] <= end))
        found[thread.tid] = Use(float(np.maximum(inside, 0).sum()) / (end - start), ended * 1e9 / (end - start))
    return found


def both(python: str, script: Path, arguments: list[str], interval_us: float, seconds: float, folder: Path) -> str:
    """Run, record and observe at once; return the line that tells."""
    exact, seen = folder / "exact", folder / "seen"
    exact.mkdir()
    seen.mkdir()
    env = {**os.environ, "LD_PRELOAD": str(native.LIBRARY), "GILTRACE_OUT": str(exact)}
    append_pair(exact)
    target = subprocess.Popen([python, str(script), *arguments], env=env, stdout=subprocess.DEVNULL)
    try:
        time.sleep(0.5)
        observer = Observer(target.pid, int(interval_us * 1000))
        collector = ObserveCollector(observer)
        start = time.monotonic_ns()
        collector.start(Session(seen, target.pid, python))
        until = time.monotonic() + seconds
        while time.monotonic() < until and observer.end is End.RUNNING:
            time.sleep(0.05)
            collector.poll()
        end = time.monotonic_ns()
        stats = observer.stats()
        collector.stop()
        append_pair(exact)
    finally:
        target.kill()
        target.wait()
    truth, found = timeline_of(exact), timeline_of(seen)
    one, other = use(truth, start, end), use(found, start, end)
    points = max(100 * abs(one[tid].held - other.get(tid, Use(0, 0)).held) for tid in one)
    waits, told = sum(u.waits for u in one.values()), sum(u.waits for u in other.values())
    sampling = found.sampling
    assert sampling is not None
    return (
        f"{1e6 / sampling.interval_ns:5.1f} kHz  typical gap {sampling.typical_gap_ns / 1e3:6.0f} us  "
        f"missed {sampling.switches_missed:4d} of {sampling.switches:5d}  held within {points:4.1f} points  "
        f"waits/s {told:6.1f} of {waits:6.1f} ({100 * (told / waits - 1) if waits else 0:+5.1f} %)  "
        f"forced {np.count_nonzero(found.holds['flags'] & 1)} of {count_forced(truth, start, end)}  "
        f"cpu {100 * stats.cpu_ns / stats.sampled_ns:3.0f} %  violations {len(found.violations)}"
    )


def count_forced(process: Process, start: int, end: int) -> int:
    """How many holds ended by force within the window."""
    holds = process.holds[(process.holds["end"] > start) & (process.holds["end"] <= end)]
    return int(np.count_nonzero(holds["flags"] & 1))


def largest_gaps(python: str, observed: bool) -> list[int]:
    """The largest gap between two readings of a target's clock in each window, ns."""
    target = subprocess.Popen([python, "-c", CLOCK_READER], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert target.stdin is not None
    assert target.stdout is not None
    target.stdout.readline()
    observer = Observer(target.pid) if observed else None
    target.stdin.write(b"\n")
    target.stdin.close()
    gaps = [int(line) for line in target.stdout]
    if observer is not None:
        observer.close()
    target.stdout.close()
    target.wait()
    return gaps


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workload", default="convoy")
    parser.add_argument("--python", action="append")
    parser.add_argument("--interval", action="append", type=float, help="microseconds")
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--pause", action="store_true")
    parser.add_argument("rest", nargs="*", help="arguments of the workload")
    options = parser.parse_args()
    for python in options.python or [sys.executable]:
        if options.pause:
            gaps: dict[bool, list[int]] = {False: [], True: []}
            for observed in (False, True) * 5:
                gaps[observed] += largest_gaps(python, observed)
            for observed, kind in ((False, "unobserved"), (True, "observed")):
                least, quarter, half = np.percentile(gaps[observed], [0, 25, 50]) / 1e3
                print(f"{python}: {kind:10}: largest gap in 25 ms: {least:.0f} us at best, ", end="")
                print(f"quartile {quarter:.0f} us, median {half:.0f} us")
            continue
        for interval in options.interval or [80]:
            with tempfile.TemporaryDirectory() as folder:
                script = WORKLOADS / f"{options.workload}.py"
                line = both(python, script, options.rest, interval, options.seconds, Path(folder))
                print(f"{python.rpartition('/')[2]:10} {line}", flush=True)


if __name__ == "__main__":
    main()

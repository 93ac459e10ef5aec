"""How long 10 million GIL events take to become a timeline, and how much memory: `python benchmarks/timeline.py`.

The input is a synthetic process in which eight threads take turns: each hold is preceded by a request and one
timed-out wait, and a million context switches are spread over the same time.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from giltrace.recording.events import GIL_EVENT, SWITCH, ProcessEvents, SchedEvents, ThreadInfo
from giltrace.recording.layout import Kind, RecordFlag
from giltrace.timeline.build import build_timeline

TARGET_SECONDS, TARGET_MIB = 5.0, 2048.0
PID = 1000
TURN_NS = 5_000


def gil_events(holds: int, threads: int) -> np.ndarray:
    """Four records per hold, one hold after the other, the threads in turn."""
    turn = np.arange(holds, dtype=np.int64)
    start = (turn + threads) * TURN_NS
    asked = start - TURN_NS * (threads - 1) + 500
    kinds = (Kind.REQUEST, Kind.TIMEOUT, Kind.ACQUIRE, Kind.RELEASE)
    times = (asked, start - TURN_NS // 2, start, start + TURN_NS - 300)
    events = np.zeros(holds * 4, GIL_EVENT)
    for index, (kind, instant) in enumerate(zip(kinds, times, strict=True)):
        part = events[index::4]
        part["time"], part["kind"], part["thread"] = instant, kind, turn % threads
        part["flags"] = RecordFlag.FORCED if kind in (Kind.TIMEOUT, Kind.RELEASE) else 0
    events["flags"][1::4] = RecordFlag.SWITCH_REQUEST
    return events[np.argsort(events["time"], kind="stable")]


def switches(count: int, threads: int, end: int) -> np.ndarray:
    """Switches on and off, `count` in all, each thread on a core of its own, every third one preempted."""
    rows = np.zeros(count // threads // 2 * 2 * threads, SWITCH)
    for thread in range(threads):
        own = rows[thread::threads]
        own["time"] = np.linspace(thread, end, len(own)).astype(np.int64)
        own["on"][0::2] = 1
        own["preempted"][1::6] = 1
        own["tid"], own["cpu"] = PID + thread, thread
    rows["pid"] = PID
    return rows[np.argsort(rows["time"], kind="stable")]


def peak_mib() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Build the timeline once and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--switches", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    events = gil_events(options.events // 4, options.threads)
    end = int(events["time"][-1]) + TURN_NS
    sched = SchedEvents(switches=switches(options.switches, options.threads, end))
    threads = tuple(ThreadInfo(PID + i, f"worker-{i}") for i in range(options.threads))
    process = ProcessEvents(PID, 1, "3.13.0", "python", "python bench.py", 0, threads, (4096,), events)
    before = peak_mib()
    begun = time.perf_counter()
    timeline = build_timeline(
        [process],
        sched,
        [],
        start=0,
        end=end,
        realtime_offset=0,
        boottime_offset=0,
        clock_error_ns=0,
        machine={"sysname": "Linux", "cpus": options.threads},
        collectors=[],
    )
    took = time.perf_counter() - begun
    built = timeline.processes[0]
    table = Table(title=f"timeline of {len(events):,} GIL events and {len(sched.switches):,} switches")
    for column in ("", "measured", "target"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("time", f"{took:.2f} s", f"{TARGET_SECONDS:.0f} s")
    table.add_row("per event", f"{took / len(events) * 1e9:.0f} ns", "")
    table.add_row("peak memory", f"{peak_mib():,.0f} MiB", f"{TARGET_MIB:,.0f} MiB")
    table.add_row("of which input", f"{before:,.0f} MiB", "")
    table.add_row("holds, waits", f"{len(built.holds):,}, {len(built.waits):,}", "")
    table.add_row("states", f"{len(built.states):,}", "")
    table.add_row("broken invariants", str(len(built.violations)), "0")
    Console().print(table)


if __name__ == "__main__":
    main()

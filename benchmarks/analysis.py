"""How long 10 million GIL events take from records to a report, and how much memory: `python benchmarks/analysis.py`.

The timeline is that of `benchmarks/timeline.py`, with a stack for every hold and wait out of 500 distinct ones.
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace

import numpy as np
from rich.console import Console
from rich.table import Table
from timeline import PID, TURN_NS, gil_events, switches

from giltrace.analysis.report import analyse
from giltrace.recording.events import FRAME, ProcessEvents, SchedEvents, StackTable, ThreadInfo
from giltrace.timeline.build import build_timeline
from giltrace.timeline.model import Process, Stacks, Timeline

TARGET_SECONDS, TARGET_MIB = 10.0, 3072.0
DEPTH = 10


def build(events_wanted: int, switches_wanted: int, threads: int) -> Timeline:
    """The timeline of a synthetic recording."""
    events = gil_events(events_wanted // 4, threads)
    end = int(events["time"][-1]) + TURN_NS
    people = tuple(ThreadInfo(PID + i, f"worker-{i}") for i in range(threads))
    process = ProcessEvents(PID, 1, "3.13.0", "python", "python bench.py", 0, people, (4096,), events)
    return build_timeline(
        [process],
        SchedEvents(switches=switches(switches_wanted, threads, end)),
        [],
        start=0,
        end=end,
        realtime_offset=0,
        boottime_offset=0,
        clock_error_ns=0,
        machine={"sysname": "Linux", "cpus": threads},
        collectors=[],
    )


def with_stacks(process: Process, distinct: int) -> Process:
    """Give every hold, wait and request one of so many stacks, each with an innermost line of its own."""
    frames = np.zeros(distinct * DEPTH, FRAME)
    frames["function"], frames["file"] = np.arange(len(frames)) % 7, 7
    frames["line"] = np.arange(len(frames))
    offsets = np.arange(0, len(frames) + 1, DEPTH, dtype=np.int64)
    table = StackTable(frames, offsets, np.zeros(distinct, np.bool_), (*(f"f{i}" for i in range(7)), "bench.py"))
    random = np.random.default_rng(1)

    def numbers(rows: np.ndarray) -> np.ndarray:
        return random.integers(0, distinct, len(rows), dtype=np.int32)

    holds, waits, asked = process.holds, process.waits, process.switch_requests
    return replace(process, stacks=Stacks(table, numbers(holds), numbers(holds), numbers(waits), numbers(asked)))


def main() -> None:
    """Build the timeline and analyse it, with few and with many distinct lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--switches", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--stacks", type=int, default=500, help="distinct stacks; 0 for none (default: %(default)s)")
    options = parser.parse_args()
    begun, cpu = time.perf_counter(), time.process_time()
    timeline = build(options.events, options.switches, options.threads)
    if options.stacks:
        timeline = replace(timeline, processes=tuple(with_stacks(p, options.stacks) for p in timeline.processes))
    built = time.perf_counter()
    report = analyse(timeline)
    done, cpu = time.perf_counter(), time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    table = Table(title=f"report on {options.events:,} GIL events, {options.stacks} distinct stacks")
    for column in ("", "measured", "target"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("timeline", f"{built - begun:.2f} s", "")
    table.add_row("analyses", f"{done - built:.2f} s", "")
    table.add_row("both", f"{done - begun:.2f} s", f"{TARGET_SECONDS:.0f} s")
    table.add_row("CPU time of both", f"{cpu:.2f} s", "")
    table.add_row("peak memory", f"{peak:,.0f} MiB", f"{TARGET_MIB:,.0f} MiB")
    table.add_row("rows of blame", str(len(report.processes[0].blame)), "")
    Console().print(table)


if __name__ == "__main__":
    main()

"""Does the what-if come true? What it predicts for threads against what processes, which share no GIL, really take.

    python benchmarks/what_if.py [--rounds 5] [--python PATH]

`cpu_bound` is two threads that count, `multiprocess` two processes that count as far; they are recorded in turns.
Predicted is how long the threads take by the replay on two cores, without what comes before the first and after the
last of them; measured is how long the longer-lived of the two processes lives. Where other programs want the cores too,
they take them from one counting thread at a time and from both processes at once, and the two cannot agree: the second
row leaves time without a core out of both. `io_bound` has nothing to gain.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from giltrace.analysis.measure import usage
from giltrace.analysis.replay.what_if import what_if
from giltrace.timeline.load import load
from giltrace.timeline.model import Process, State

CORES = 2
TARGET = 0.10


class Round(NamedTuple):
    """One recording of each workload; times in ns, the bound as a ratio."""

    predicted: int
    measured: int
    predicted_on_core: int
    measured_on_core: int
    io_bound: float


def record(name: str, python: str) -> tuple[Process, ...]:
    """Record a bundled workload once and return its processes."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, name)
        command = [sys.executable, "-m", "giltrace", "record", "--light", "--python", python, "-o", str(output), name]
        subprocess.run(command, check=True, capture_output=True)
        return load(output.with_name(f"{name}.giltrace")).processes


def on_core(process: Process) -> int:
    """The most that one of its threads ran: that of the main thread, which only waits in `cpu_bound`, is less."""
    sums = usage.state_sums(process)
    return int((sums[:, State.HOLDING_RUNNING] + sums[:, State.OFF_RUNNING]).max())


def one_round(python: str) -> Round:
    """Record all three."""
    (threads,) = record("cpu_bound", python)
    processes = record("multiprocess", python)
    (sleepers,) = record("io_bound", python)
    workers = [thread for thread in threads.threads if thread.tid != threads.pid]
    around = (threads.end - threads.start) - (max(w.end for w in workers) - min(w.start for w in workers))
    children = [process for process in processes if process.ppid in {other.pid for other in processes}]
    return Round(
        predicted=what_if(threads, CORES).makespan_ns - around,
        measured=max(child.end - child.start for child in children),
        predicted_on_core=on_core(threads),
        measured_on_core=max(on_core(child) for child in children),
        io_bound=what_if(sleepers, CORES).speedup_bound,
    )


def main() -> None:
    """Print what was predicted, what was measured, and their ratio; medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", default=sys.executable, help="interpreter to trace (default: this one)")
    options = parser.parse_args()
    rounds = [one_round(options.python) for _ in range(options.rounds)]
    table = Table(title=f"what if there were no GIL, on {CORES} cores ({options.rounds} rounds, medians)")
    for column in ("", "predicted", "measured", "ratio", "target"):
        table.add_column(column, justify="left" if not column else "right")
    rows = {
        "cpu_bound against a process of multiprocess": [(one.predicted, one.measured) for one in rounds],
        "the same, time on a core only": [(one.predicted_on_core, one.measured_on_core) for one in rounds],
    }
    for label, pairs in rows.items():
        predicted, measured = (statistics.median(column) / 1e6 for column in zip(*pairs, strict=True))
        ratio = statistics.median(mine / real for mine, real in pairs)
        limits = f"{1 - TARGET:.2f} to {1 + TARGET:.2f}"
        table.add_row(label, f"{predicted:.0f} ms", f"{measured:.0f} ms", f"{ratio:.3f}", limits)
    table.add_row("io_bound, speedup", f"{statistics.median(one.io_bound for one in rounds):.3f} x", "", "", "1.000 x")
    console = Console(width=110)
    console.print(table)
    console.print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

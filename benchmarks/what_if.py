"""Does the what-if come true? What it predicts for threads against what processes, which share no GIL, really take.

    python benchmarks/what_if.py [--rounds 5] [--python PATH] [--free-threaded PATH]

`cpu_bound` is two threads that count, `multiprocess` two processes that count as far; they are recorded in turns.
Predicted is how long the threads take by the replay on two cores, without what comes before the first and after the
last of them; measured is how long the longer-lived of the two processes lives. Where other programs want the cores too,
they take them from one counting thread at a time and from both processes at once, and the two cannot agree: the second
row leaves time without a core out of both. `io_bound` has nothing to gain.

The second table is of small programs, each pinned to one core and to two. Predicted is the bound of their threads; real
is by how much processes with the same work are faster than these threads, not traced, in the same round. With
`--free-threaded` (a Python built without a GIL) there is also by how much its threads gain if it has none. That takes a
machine with nothing else to do: the load is printed last.
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

#: What each of the `WORKERS` does; all begin together, and the seconds until the last one has ended are printed.
PROGRAMS = {
    "count": "count(6_000_000)",
    "count, sleep": "for _ in range(150): count(40_000); time.sleep(0.001)",
    "count, hash off the GIL": "for _ in range(60): count(50_000); hashlib.sha256(DATA).digest()",
}
WORKERS = 2
_PROGRAM = """
import hashlib, multiprocessing, sys, threading, time
DATA = bytes(2_000_000)
def count(limit):
    number = 0
    while number < limit:
        number += 1
def work(barrier):
    barrier.wait()
    {work}
def main():
    kind = {{"threads": (threading.Thread, threading.Barrier)}}.get(sys.argv[1])
    kind = kind or (multiprocessing.Process, multiprocessing.Barrier)
    barrier = kind[1]({workers} + 1)
    workers = [kind[0](target=work, args=(barrier,)) for _ in range({workers})]
    for worker in workers:
        worker.start()
    barrier.wait()
    begin = time.perf_counter()
    for worker in workers:
        worker.join()
    print(time.perf_counter() - begin)
if __name__ == "__main__":
    main()
"""


class Round(NamedTuple):
    """One recording of each workload; times in ns, the bound as a ratio."""

    predicted: int
    measured: int
    predicted_on_core: int
    measured_on_core: int
    io_bound: float


def record(name: str, python: str, *arguments: str) -> tuple[Process, ...]:
    """Record a program or bundled workload once and return its processes."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "recorded")
        command = [sys.executable, "-m", "giltrace", "record", "--light", "--python", python, "-o", str(output), name]
        subprocess.run([*command, *arguments], check=True, capture_output=True)
        return load(output.with_name("recorded.giltrace")).processes


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


class Small(NamedTuple):
    """What one round of a small program gave: by how much it would be, and really is, faster without a GIL."""

    predicted: float
    processes: float
    free: float


def small_round(script: Path, cores: int, python: str, free_threaded: str | None) -> Small:
    """Run a small program with threads, traced and not, with processes, and without a GIL; on so many cores each."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        (traced,) = record(str(script), python, "threads")
        threads, processes = (seconds(python, script, kind) for kind in ("threads", "processes"))
        free = float("nan")
        if free_threaded is not None:
            with_gil, without = (seconds(free_threaded, script, "threads", PYTHON_GIL=gil) for gil in "10")
            free = with_gil / without
    finally:
        os.sched_setaffinity(0, before)
    workers = [thread for thread in traced.threads if thread.tid != traced.pid]
    around = (traced.end - traced.start) - (max(w.end for w in workers) - min(w.start for w in workers))
    found = what_if(traced, os.cpu_count() or 1)
    return Small((found.measured_ns - around) / (found.makespan_ns - around), threads / processes, free)


def seconds(python: str, script: Path, kind: str, **more: str) -> float:
    """How long the workers took."""
    ran = subprocess.run(
        [python, script, kind], env={**os.environ, **more}, check=True, capture_output=True, text=True, timeout=300
    )
    return float(ran.stdout)


def small_programs(rounds: int, python: str, free_threaded: str | None) -> Table:
    """All small programs on one core and on two."""
    table = Table(title=f"the same work in processes ({rounds} rounds, medians)")
    for column in ("", "cores", "predicted", "processes", "ratio", "target", "free-threaded"):
        table.add_column(column, justify="left" if not column else "right")
    with tempfile.TemporaryDirectory() as folder:
        for name, work in PROGRAMS.items():
            script = Path(folder, "program.py")
            script.write_text(_PROGRAM.format(work=work, workers=WORKERS))
            for cores in range(1, CORES + 1):
                found = [small_round(script, cores, python, free_threaded) for _ in range(rounds)]
                predicted, real, free = (statistics.median(column) for column in zip(*found, strict=True))
                ratio = statistics.median(one.predicted / one.processes for one in found)
                cells = (f"{predicted:.2f} x", f"{real:.2f} x", f"{ratio:.3f}", f"{1 - TARGET:.2f} to {1 + TARGET:.2f}")
                table.add_row(name, str(cores), *cells, f"{free:.2f} x" if free_threaded else "")
    return table


def main() -> None:
    """Print what was predicted, what was measured, and their ratio; medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", default=sys.executable, help="interpreter to trace (default: this one)")
    parser.add_argument("--free-threaded", help="a Python built without a GIL, to run the small programs with")
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
    console.print(small_programs(options.rounds, options.python, options.free_threaded))
    console.print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

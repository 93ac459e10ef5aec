"""Do forecasts come true? What the report says that a change would bring at most, and what the changed program does.

    python -m benchmarks.what_if [--rounds 5] [--python PATH] [--free-threaded PATH] [--first] [--markdown FILE]

The first table is of workloads and the changes of `changes.py`: each round records one, and runs it as it is and
changed, not traced. Forecast is the bound of the report, real by how much the changed program is faster. A run in which
others used the machine is done again, and what remains of that is told; with `--first` it is not, but others are served
after it.

The second table is of small programs, each pinned to one core and to two. Predicted is the bound of their threads; real
is by how much processes with the same work are faster than these threads, not traced, in the same round. With
`--free-threaded` (a Python built without a GIL) there is also by how much its threads gain if it has none; without it
the changes that need one are left out.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table

from benchmarks import changes
from benchmarks.changes import CHANGES, Change, Round
from benchmarks.run import machine, spread, version
from benchmarks.tables import in_markdown
from giltrace.analysis.replay.what_if import what_if
from giltrace.timeline.load import load
from giltrace.timeline.model import Process

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
HEAD = ["program", "change", "interpreter", "forecast", "real", "difference"]
_PAGE = """# Whether forecasts come true

Written by `python -m benchmarks.what_if --markdown docs/forecasts.md` on {today}: {machine}.

The report says what a change would bring at most: no GIL, a lock less, a call that releases the GIL. Here each program
was recorded, and then changed that way. *Forecast* is what the report says of the recording, *real* by how much the
changed program is faster, neither of both traced: medians of {rounds} rounds, and in brackets the least and the most.
Time in which the worker threads do not live yet, or no more, is left out of both. {others}

{table}

What is forecast is meant as a bound, with the CPU time that was measured and the cores that the process had; where the
real figure is the larger one, it was none. The aim is a difference of at most {target:.0%}. A replay keeps wake-ups and
CPU time as they were measured, which the change may alter, and does not know of caches, clock rates and other programs.
"""


_REPEATED = """Runs take turns, and one in which
others used more than {quiet:.0%} of a core is done again; at most they used {busy:.0%}."""
_FIRST = """Runs take turns. Other
programs used the machine too, {busy:.1f} cores' worth of it at most, but were served after these."""


class Small(NamedTuple):
    """What one round of a small program gave: by how much it would be, and really is, faster without a GIL."""

    predicted: float
    processes: float
    free: float


def record(script: Path, python: str, *arguments: str) -> Process:
    """Record a program of one process."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "recorded")
        command = [sys.executable, "-m", "giltrace", "record", "--light", "--python", python, "-o", str(output)]
        subprocess.run([*command, str(script), *arguments], check=True, capture_output=True)
        (process,) = load(output.with_name("recorded.giltrace")).processes
        return process


def small_round(script: Path, cores: int, python: str, free_threaded: str | None) -> Small:
    """Run a small program with threads, traced and not, with processes, and without a GIL; on so many cores each."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])
    try:
        traced = record(script, python, "threads")
        threads, processes = (seconds(python, script, kind) for kind in ("threads", "processes"))
        free = float("nan")
        if free_threaded is not None:
            with_gil, without = (seconds(free_threaded, script, "threads", PYTHON_GIL=gil) for gil in "10")
            free = with_gil / without
    finally:
        os.sched_setaffinity(0, before)
    around = changes.around(traced)
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


def changed_programs(
    chosen: list[Change], rounds: int, python: str, free: str | None, attempts: int
) -> dict[Change, list[Round]]:
    """Some rounds of each change for which there is an interpreter; the changes take turns within a round."""
    found: dict[Change, list[Round]] = {}
    for number in range(rounds):
        for change in chosen:
            interpreter = free if change.free_threaded else python
            if interpreter is not None:
                print(f"round {number + 1} of {rounds}: {change.name}, {change.what}", file=sys.stderr)
                found.setdefault(change, []).append(changes.one_round(change, interpreter, attempts))
    return found


def rows_of(found: dict[Change, list[Round]], told: str, told_free: str) -> list[list[str]]:
    """A table: forecast and real factor of each change, and how far the forecast is off."""
    rows = []
    for change, rounds in found.items():
        forecast, real, _ = zip(*rounds, strict=True)
        off = statistics.median(forecast) / statistics.median(real) - 1
        cells = [f"{spread(list(column), 2)} x" for column in (forecast, real)]
        rows.append([change.name, change.what, told_free if change.free_threaded else told, *cells, f"{off:+.1%}"])
    return rows


def page(rows: list[list[str]], found: dict[Change, list[Round]], rounds: int, *, first: bool) -> str:
    """The page of the documentation."""
    busy = max(one.busy for several in found.values() for one in several)
    return _PAGE.format(
        today=f"{datetime.date.today():%Y-%m-%d}",
        machine=machine(),
        rounds=rounds,
        others=(_FIRST if first else _REPEATED).format(quiet=changes.QUIET, busy=busy),
        table=in_markdown(HEAD, rows),
        target=TARGET,
    )


def main() -> None:
    """Print what was forecast, what was measured, and by how much they differ; medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("changes", nargs="*", metavar="PROGRAM", help="only changes of these")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--python", default=sys.executable, help="interpreter to trace (default: this one)")
    parser.add_argument("--free-threaded", help="a Python built without a GIL")
    parser.add_argument("--markdown", type=Path, help="write the page of the documentation here; no second table then")
    parser.add_argument("--first", action="store_true", help="take precedence over other programs (as root)")
    options = parser.parse_args()
    if options.first:
        changes.take_precedence()
    attempts = 1 if options.first else changes.ATTEMPTS
    chosen = [change for change in CHANGES if not options.changes or change.name in options.changes]
    found = changed_programs(chosen, options.rounds, options.python, options.free_threaded, attempts)
    free = f"{version(options.free_threaded)}t" if options.free_threaded else ""
    rows = rows_of(found, version(options.python), free)
    table = Table(*HEAD, title=f"forecasts and changed programs ({options.rounds} rounds: median, least and most)")
    for row in rows:
        table.add_row(*row)
    console = Console(width=130)
    console.print(table)
    if options.markdown is not None:
        options.markdown.write_text(page(rows, found, options.rounds, first=options.first))
    elif not options.changes:
        console.print(small_programs(options.rounds, options.python, options.free_threaded))
    console.print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

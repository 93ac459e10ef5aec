"""How long a recording of 10 million events on disk takes to report and to export, and how much memory that needs.

    python benchmarks/recording.py [--events 10000000] [--threads 8] [--keep FOLDER]

The recording is a real one: threads that read single bytes, at three lines by turns, below a stack ten deep. They
contend for the GIL as the machine lets them, so that no two recordings are the same: each table stands for its own. All
work is done by one thread, so that CPU time is what a machine with nothing else to do takes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from giltrace.recording.gil import count_records, open_files
from giltrace.recording.layout import Kind

PROGRAM = """
import os, sys, threading
def read_on(count, fd, depth):
    if depth:
        return read_on(count, fd, depth - 1)
    read = os.read
    for _ in range(count // 4):
        read(fd, 1); read(fd, 1)
        read(fd, 1)
        read(fd, 1)
fd = os.open("/dev/zero", os.O_RDONLY)
calls, threads = int(sys.argv[1]), int(sys.argv[2])
workers = [threading.Thread(target=read_on, args=(calls // threads, fd, 8)) for _ in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
"""

EXPORT = """
import sys
from pathlib import Path
from giltrace.cli.loading import load
from giltrace.exporters.perfetto.trace import write
write(load(Path(sys.argv[1])), Path(sys.argv[2]))
"""

#: Seconds and MiB asked for, by what is measured.
TARGETS: dict[str, tuple[float, float | None]] = {
    "giltrace report": (10.0, 3072.0),
    "giltrace report --json": (10.0, 3072.0),
    "export to Perfetto": (30.0, None),
}


def record(folder: Path, events: int, threads: int) -> Path:
    """Record so many events or some more: an acquire and a release per call, and a request per wait."""
    name = folder / "million"
    options = ["--light", "--python", sys.executable, "-f", "-o", str(name)]
    command = [sys.executable, "-m", "giltrace", "record", *options, "-c", PROGRAM, str(events // 2), str(threads)]
    subprocess.run(command, check=True, capture_output=True)
    return name.with_name("million.giltrace")


def measure(command: list[str]) -> tuple[float, float, float]:
    """Run a command and return its seconds from start to end and on a core, and the MiB that it needed at most."""
    begun = time.perf_counter()
    with open(os.devnull, "wb") as nowhere:
        process = subprocess.Popen(command, stdout=nowhere)
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - begun
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} ended with status {process.returncode}")
    return took, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _table(recording: Path, repeat: int) -> Table:
    files = open_files(recording)
    count = sum(count_records(file, kind) for file in files for kind in (Kind.REQUEST, Kind.TIMEOUT, Kind.ACQUIRE))
    count += sum(count_records(file, kind) for file in files for kind in (Kind.RELEASE, Kind.THREAD_END))
    size = sum(path.stat().st_size for path in recording.iterdir()) / 1e6
    commands = {
        "giltrace report": [sys.executable, "-m", "giltrace", "report", str(recording)],
        "giltrace report --json": [sys.executable, "-m", "giltrace", "report", str(recording), "--json"],
        "export to Perfetto": [sys.executable, "-c", EXPORT, str(recording), str(recording.with_suffix(".pftrace"))],
    }
    table = Table(title=f"{count:,} events ({size:,.0f} MB) on disk, shortest of {repeat}")
    for column in ("", "time", "target", "CPU time", "peak memory", "target"):
        table.add_column(column, justify="left" if not column else "right")
    for label, command in commands.items():
        runs = [measure(command) for _ in range(repeat)]
        seconds, cpu, mib = min(run[0] for run in runs), min(run[1] for run in runs), max(run[2] for run in runs)
        most_seconds, most_mib = TARGETS[label]
        memory = f"{most_mib:,.0f} MiB" if most_mib is not None else ""
        times = (f"{seconds:.2f} s", f"{most_seconds:.0f} s", f"{cpu:.2f} s")
        table.add_row(label, *times, f"{mib:,.0f} MiB", memory)
    return table


def main() -> None:
    """Record, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the recording in this folder")
    options = parser.parse_args()
    console = Console(width=110)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        console.print(_table(record(folder, options.events, options.threads), options.repeat))
    console.print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

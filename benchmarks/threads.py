"""What tracing costs a program that starts threads without end: CPU time, and bytes in the recording, of each.

    python benchmarks/threads.py [--python PATH ...] [--rounds 5]

Each thread reads four single bytes, which are four releases, and ends. They are started one after another, or sixteen
at a time. The program's CPU time, user's and system's, is taken by itself from before the first thread to after the
last; the conditions take turns within a round, and the table shows medians over the rounds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cost import print_tables
from rich.table import Table

from giltrace.recording.events import GIL_EVENT
from giltrace.recording.gil import open_files, read_process

#: More than the bare program, in percent.
TARGET_PERCENT = 10

THREADS = 8000

PROGRAM = """
import os, resource, sys, threading
fd, read = os.open("/dev/zero", os.O_RDONLY), os.read
def work():
    read(fd, 1)
    read(fd, 1)
    read(fd, 1)
    read(fd, 1)
def start(count, together):
    for _ in range(count // together):
        threads = [threading.Thread(target=work) for _ in range(together)]
        for each in threads: each.start()
        for each in threads: each.join()
def used():
    now = resource.getrusage(resource.RUSAGE_SELF)
    return now.ru_utime + now.ru_stime
start(160, TOGETHER)
before = used()
start(THREADS, TOGETHER)
open(sys.argv[1], "w").write(repr(used() - before))
"""

#: The tracer alone, without stacks and with them; and as one would record, with context switches by the kernel.
CONDITIONS: dict[str, tuple[str, ...] | None] = {
    "untraced": None,
    "gil, no stacks": ("--light", "--without", "sched", "--stacks", "none"),
    "gil": ("--light", "--without", "sched"),
    "--light": ("--light",),
}


def run(python: str, together: int, options: tuple[str, ...] | None, folder: Path) -> float:
    """Run the program and return the CPU seconds of a thread; its recording is `folder`/r.giltrace."""
    program, result = folder / "program.py", folder / "used"
    program.write_text(PROGRAM.replace("TOGETHER", str(together)).replace("THREADS", str(THREADS)))
    command = [python, str(program), str(result)]
    if options is not None:
        record = [sys.executable, "-m", "giltrace", "record", *options, "--python", python]
        command = [*record, "-f", "-o", str(folder / "r"), str(program), str(result)]
    subprocess.run(command, capture_output=True, check=True, cwd=folder)
    return float(result.read_text()) / THREADS


def read(folder: Path) -> tuple[float, float]:
    """The bytes that a thread takes in the file of the recording in `folder`, and the seconds that reading it takes."""
    recording = folder / "r.giltrace"
    start = time.perf_counter()
    (file,) = open_files(recording)
    process = read_process(file, None, stacks=False)
    took = time.perf_counter() - start
    assert process.events.dtype == GIL_EVENT
    return os.stat(file.path).st_size / len(process.threads), took / len(process.threads)


def threads_table(python: str, rounds: int) -> Table:
    """Measure both ways to start threads under each condition, the conditions taking turns."""
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    table = Table(title=f"{version}: CPU time of a thread of four releases ({rounds} rounds, medians)")
    for name in ("threads", *CONDITIONS, "target", "bytes", "to read"):
        table.add_column(name, justify="left" if name == "threads" else "right")
    for together, label in ((1, "one after another"), (16, "sixteen at a time")):
        took: dict[str, list[float]] = {condition: [] for condition in CONDITIONS}
        with tempfile.TemporaryDirectory() as name:
            for _ in range(rounds):
                for condition, options in CONDITIONS.items():
                    took[condition].append(run(python, together, options, Path(name)))
            size, reading = read(Path(name))
        bare = took["untraced"]
        cells = [f"{statistics.median(bare) * 1e6:.1f} us"]
        for condition in list(CONDITIONS)[1:]:
            ratio = statistics.median(mine / own for mine, own in zip(took[condition], bare, strict=True))
            cells.append(f"{100 * (ratio - 1):+.1f} %")
        table.add_row(label, *cells, f"+{TARGET_PERCENT} %", f"{size:.0f}", f"{reading * 1e6:.1f} us")
    return table


if __name__ == "__main__":
    print_tables(__doc__ or "", threads_table)

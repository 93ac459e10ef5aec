"""What it costs a program that its waiting threads look at what the holder does, and whether that changes its switches.

    python benchmarks/sampling.py [--python PATH ...] [--rounds 7]

Each program runs under `giltrace record --light` with Python stacks, whose waiters sample, and with `--stacks none`,
where they do not; the two take turns, and the table shows the medians of the ratios within a round. With stacks, those
at releases are recorded too: of programs that only compute there are few.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from pathlib import Path

from cost import print_tables, record
from rich.table import Table

import giltrace

HEAD = """
import os, sys, threading, time
if PINNED: os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
zero = os.open("/dev/zero", os.O_RDONLY)
def run(count, work):
    threads = [threading.Thread(target=work) for _ in range(count)]
    begin = time.perf_counter()
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    print(time.perf_counter() - begin)
"""
PROGRAMS = {
    "4 threads that compute": """
def work():
    for _ in range(8_000_000): pass
run(4, work)
""",
    "4 threads, 0.2 ms and a read by turns": """
def work():
    for _ in range(1500):
        for _ in range(8_000): pass
        os.read(zero, 1)
run(4, work)
""",
    "1 thread that reads": """
def work():
    for _ in range(1_000_000): os.read(zero, 1)
run(1, work)
""",
}


def _run(python: str, source: str, stacks: str) -> tuple[float, int]:
    """How many seconds the program took by its own clock, and how many switch requests it saw."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        program = folder / "program.py"
        program.write_text(source)
        command = record("--light", "--stacks", stacks)(python, program, folder)
        ran = subprocess.run(command, capture_output=True, text=True, check=True)
        timeline = giltrace.load(folder / "r").timeline
        return float(ran.stdout), sum(len(process.switch_requests) for process in timeline.processes)


def sampling_table(python: str, rounds: int) -> Table:
    """Measure each program, free to move and on one core."""
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    table = Table(title=f"{version}: sampling against not sampling ({rounds} rounds, medians)")
    for heading in ("program", "cores", "took", "ratio of times", "switch requests", "without"):
        table.add_column(heading, justify="left" if heading == "program" else "right")
    for name, body in PROGRAMS.items():
        for pinned in (False, True):
            source = HEAD.replace("PINNED", str(pinned)) + body
            pairs = [(_run(python, source, "full"), _run(python, source, "none")) for _ in range(rounds)]
            table.add_row(
                name,
                "1" if pinned else "all",
                f"{statistics.median(with_[0] for with_, _ in pairs):.2f} s",
                f"{statistics.median(with_[0] / without[0] for with_, without in pairs):.3f}",
                *(f"{statistics.median(each[1] for each in side):.0f}" for side in zip(*pairs, strict=True)),
            )
    return table


if __name__ == "__main__":
    print_tables(__doc__ or "", sampling_table)

"""What it costs a program, and the recorder, to be looked at for which native code it runs.

    python benchmarks/native_code.py [--python PATH ...] [--rounds 9]

First what one sample costs a thread that computes: in this process, with samples on and off by turns from one
millisecond of work to the next, so that a busy machine does not matter much. Then whole programs: bare, under the
collector of context switches without samples, and with them, by turns; medians of the ratios, within a round, of the
CPU time that the program itself measured.
"""

from __future__ import annotations

import fcntl
import os
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

from cost import print_tables
from rich.table import Table

from giltrace.collectors import _perf
from giltrace.collectors.base import Session
from giltrace.collectors.sched import PERIOD_NS, SchedCollector
from giltrace.launch.child import Child
from giltrace.recording.code_samples import read_code_samples
from giltrace.recording.maps_file import DEPTH

ENABLE, DISABLE = 0x2400, 0x2401
DENSE_NS = 50_000
PIECES = 4000
HEAD = """
import hashlib, os, sys, threading, time
def run(*works):
    threads = [threading.Thread(target=work) for work in works]
    begin = time.process_time(), time.perf_counter()
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    open(sys.argv[1], "w").write(f"{time.process_time() - begin[0]} {time.perf_counter() - begin[1]}")
"""
PROGRAMS = {
    "2 hash, off the GIL": """
def work(): hashlib.pbkdf2_hmac("sha256", b"x", b"y", 800_000)
run(work, work)
""",
    "2 count": """
def work():
    for _ in range(8_000_000): pass
run(work, work)
""",
    "30,000 bytes to and fro": """
(a, b), (c, d) = os.pipe(), os.pipe()
def ask():
    for _ in range(30_000): os.write(b, b"x"); os.read(c, 1)
def answer():
    for _ in range(30_000): os.read(a, 1); os.write(d, b"x")
run(ask, answer)
""",
    "1 sleeps 10,000 times": """
def work():
    for _ in range(10_000): time.sleep(0.00005)
run(work)
""",
}


def _sample_ns() -> float:
    """What a sample costs a thread of this process, in ns."""

    def work() -> None:
        for _ in range(30_000):
            pass

    took: dict[bool, list[float]] = {True: [], False: []}
    with tempfile.TemporaryDirectory() as scratch:
        sampling = _perf.Sampling(DENSE_NS, DEPTH)
        event = _perf.open_switches(threading.get_native_id(), -1, inherit=False, sampling=sampling)
        ring = _perf.Ring(event, Path(scratch) / "samples.bin", _perf.ring_pages())
        for number in range(PIECES):
            sampled = bool(number % 2)
            fcntl.ioctl(event, ENABLE if sampled else DISABLE, 0)
            begin = time.thread_time()
            work()
            took[sampled].append(time.thread_time() - begin)
            ring.drain()
        ring.close()
    with_, without = (statistics.median(took[sampled]) for sampled in (True, False))
    return (with_ - without) / (without / DENSE_NS)


class Cost(NamedTuple):
    """Of one run: the program's CPU time, the recorder's as a part of a core, the size of its files, and samples."""

    cpu: float
    recorder: float
    bytes: int
    samples: int


def _run(python: str, source: str, period_ns: int | None) -> Cost:
    """Run a program with a sample per so much of a thread's time, 0 for none; None for no collector at all."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        recording, program, told = folder / "r", folder / "program.py", folder / "told"
        recording.mkdir()
        program.write_text(source)
        collector = SchedCollector(period_ns=period_ns) if period_ns is not None else None
        child = Child([python, str(program), str(told)], dict(os.environ))
        begin = time.process_time()
        if collector is not None:
            collector.start(Session(recording, child.pid, python))
        child.release()
        while child.wait(0.05) is None:
            pass
        if collector is not None and not (report := collector.stop()).ok:
            raise SystemExit(report.status)
        recorder = time.process_time() - begin
        cpu, wall = map(float, told.read_text().split())
        size = sum(path.stat().st_size for path in recording.iterdir())
        return Cost(cpu, recorder / wall, size, len(read_code_samples(recording).samples))


def _ratio(costs: list[dict[int | None, Cost]], condition: int, to: int | None) -> str:
    return f"{statistics.median(one[condition].cpu / one[to].cpu for one in costs):.3f}"


def native_code_table(python: str, rounds: int) -> Table:
    """Measure each program bare, without samples, and with them."""
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    sample = statistics.median(_sample_ns() for _ in range(rounds))
    rates = ", ".join(f"{sample * rate / 1e7:.2f} % at {rate} a second" for rate in (100, 200, 500))
    table = Table(
        title=f"{version}, a sample per {PERIOD_NS / 1e6:g} ms ({rounds} rounds, medians)",
        caption=f"a sample costs {sample / 1e3:.1f} us of a thread that computes: {rates}",
    )
    headings = ("threads", "bare", "switches", "+ samples", "to that", "recorder", "+ samples", "files", "+ samples")
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "threads" else "right")
    for name, body in PROGRAMS.items():
        runs = [{each: _run(python, HEAD + body, each) for each in (None, 0, PERIOD_NS)} for _ in range(rounds)]
        table.add_row(
            name,
            f"{statistics.median(one[None].cpu for one in runs):.3f} s",
            _ratio(runs, 0, None),
            _ratio(runs, PERIOD_NS, None),
            _ratio(runs, PERIOD_NS, 0),
            *(f"{statistics.median(one[each].recorder for one in runs) * 100:.1f} %" for each in (0, PERIOD_NS)),
            *(f"{statistics.median(one[each].bytes for one in runs) / 1e3:,.0f} kB" for each in (0, PERIOD_NS)),
        )
    return table


if __name__ == "__main__":
    print_tables(__doc__ or "", native_code_table)

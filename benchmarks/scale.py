"""How long a recording of many millions of records takes to be told of, and how much memory.

    python benchmarks/scale.py [--millions 10 100 1000] [--seconds 5] [--dense 5 60] [--keep FOLDER]

A program of two threads, one that gives the GIL up 300,000 times a second or more and one that computes now and then,
is recorded for a few seconds. What its threads did is then repeated in a recording of its own, one time after the
other, until there are as many records (8 bytes each) as asked for; a billion need 8 GB of room. Each command runs in a
process of its own: wall time, CPU time and the most memory that it had.

With --dense, six threads pass a byte to and fro through pipes for so many seconds each, recorded with their context
switches: a million and a half events a second, none of which can be added up.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from giltrace.recording import layout
from giltrace.recording.chunks import ALIGNMENT, find
from giltrace.recording.clock import PAIR
from giltrace.recording.clock_file import FILE as CLOCK
from giltrace.recording.gil import count_records, open_files
from giltrace.recording.meta import FILE as META
from giltrace.recording.packed import Laid
from giltrace.recording.sched import most_switches

PROGRAM = """
import os, sys, threading, time
def read(until, zero=os.open("/dev/zero", os.O_RDONLY)):
    while time.monotonic() < until:
        for _ in range(200):
            os.read(zero, 16)
def compute(until):
    while time.monotonic() < until:
        sum(range(20_000))
        time.sleep(0.02)
until = time.monotonic() + float(sys.argv[1])
threads = [threading.Thread(target=one, args=(until,), name=one.__name__) for one in (read, compute)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
DENSE = """
import os, sys, threading, time
until = time.monotonic() + float(sys.argv[1])
def pong(read, write):
    while os.read(read, 1):
        if time.monotonic() > until:
            return os.close(write)
        try:
            os.write(write, b"x")
        except BrokenPipeError:
            return
threads = []
for _ in range(3):
    (read, other_write), (other_read, write) = os.pipe(), os.pipe()
    threads += [threading.Thread(target=pong, args=ends) for ends in ((read, write), (other_read, other_write))]
    os.write(write, b"x")
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""
COMMANDS = {
    "report": ("report", "{name}"),
    "report --json": ("report", "{name}", "--json"),
    "export --to perfetto": ("export", "{name}", "--to", "perfetto", "-f", "-o", "{name}.pftrace"),
    "export --to parquet": ("export", "{name}", "--to", "parquet", "-f", "-o", "{name}.parquet"),
}


def record(folder: Path, seconds: float) -> Path:
    """Record the program in `folder`; returns the recording, which has no context switches."""
    script = folder / "reads.py"
    script.write_text(PROGRAM)
    name = folder / "once"
    command = [sys.executable, "-m", "giltrace", "record", "--light", "--without", "sched", "--no-trace", "-o", name]
    subprocess.run([*command, script, str(seconds)], check=True, stderr=subprocess.DEVNULL)
    return name.with_suffix(".giltrace")


def record_dense(folder: Path, seconds: float) -> tuple[Path, int]:
    """Record what cannot be added up; returns the recording, and how many events and context switches it has."""
    script = folder / "pipes.py"
    script.write_text(DENSE)
    name = folder / f"dense{seconds:g}"
    command = [sys.executable, "-m", "giltrace", "record", "--light", "--no-trace", "-o", name, script, str(seconds)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    into = name.with_suffix(".giltrace")
    counted = sum(count_records(file, kind) for file in open_files(into) for kind in layout.Kind)
    return into, counted + most_switches(into)


def measured(into: Path, records: int) -> None:
    """Run each of the commands on a recording, and print a row for it."""
    for told, words in COMMANDS.items():
        wall, cpu, most = measure([word.format(name=into.with_suffix("")) for word in words])
        print(f"{records:>14,}  {told:<22}{wall:>10.1f}{cpu:>10.1f}{most:>8,.0f}", flush=True)


def repeat(once: Path, into: Path, records: int) -> int:
    """Make the recording `into` of `once`, repeated until it has so many records; returns how many it has."""
    into.mkdir()
    (path,) = once.glob("gil-*.bin")
    with Laid(path) as file:
        places = find(file)
        places = places[np.lexsort((places["sequence"], places["base"]))]
        chunks = [file.read(int(place["at"]), int(place["size"])) for place in places]
        begin = file.read(0, layout.HEADER_SIZE)
    of_once = sum(int(np.count_nonzero(np.frombuffer(chunk[layout.CHUNK.itemsize :], "<u8"))) for chunk in chunks)
    times = -(-records // of_once)
    pairs = np.fromfile(once / CLOCK, PAIR)
    ticks, ns = (int(pairs[clock][-1] - pairs[clock][0]) for clock in ("ticks", "ns"))
    with (into / path.name).open("wb") as out:
        out.write(begin)
        for number in range(times):
            for chunk in chunks:
                head = np.frombuffer(chunk, layout.CHUNK, 1).copy()
                head["base"] += number * ticks
                head["sequence"] += number << 16
                head["size"] = -(-len(chunk) // ALIGNMENT) * ALIGNMENT
                out.write(
                    head.tobytes() + chunk[layout.CHUNK.itemsize :].ljust(int(head["size"][0]) - head.nbytes, b"\0")
                )
    spread = pairs[[0, -1]]
    spread["ticks"][-1] += (times - 1) * ticks
    spread["ns"][-1] += (times - 1) * ns
    spread.tofile(into / CLOCK)
    meta = json.loads((once / META).read_text())
    meta["end_ns"] = meta["start_ns"] + times * ns
    (into / META).write_text(json.dumps(meta))
    for stacks in once.glob("stacks-*.bin"):
        (into / stacks.name).write_bytes(stacks.read_bytes())
    return times * of_once


def measure(words: list[str]) -> tuple[float, float, float]:
    """Run giltrace with `words`: seconds of wall and of CPU time, and the most memory in MB."""
    begun = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-m", "giltrace", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, used = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"giltrace {' '.join(words)} ended with status {status}")
    return time.perf_counter() - begun, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--millions", type=int, nargs="*", default=[10, 100])
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--dense", type=float, nargs="*", default=[], metavar="SECONDS")
    parser.add_argument("--keep", type=Path, help="A folder for the recordings; else they go.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = asked.keep or Path(name)
        once = record(folder, asked.seconds) if asked.millions else folder
        print(f"{'records':>14}  {'command':<22}{'wall, s':>10}{'CPU, s':>10}{'MB':>8}")
        for millions in asked.millions:
            into = folder / f"x{millions}.giltrace"
            measured(into, repeat(once, into, millions * 1_000_000))
        for seconds in asked.dense:
            measured(*record_dense(folder, seconds))


if __name__ == "__main__":
    main()

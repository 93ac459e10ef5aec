"""How long do the cookbook's questions take of a recording that no trace processor holds? Makes up a data set of so
many events (a request, wait, acquire or release), one process after the other, and asks ten questions by DuckDB.

    python benchmarks/columnar.py [--events 10000000] [--threads 20] [--keep FOLDER]

The target is 10 s for each question at 100 M events. Prints what writing took too, and the memory beside one process.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.export import with_places
from giltrace.exporters.tables.parquet import write_dataset
from giltrace.timeline.model import Process
from giltrace.timeline.states import thread_states
from giltrace.views.columnar import ColumnarProcessor, is_dataset
from tests.synthetic import make_process, make_timeline

PAGE = Path(__file__).parents[1] / "docs" / "cookbook.md"
#: Holds of one process image: what is in memory at a time.
HOLDS = 500_000
TARGET_SECONDS = 10
#: Dealt out at random, so that every line waits for every other: as many pairs as a program of some size has.
STACKS = 60


def questions() -> dict[str, str]:
    """The questions of the cookbook that are about the GIL alone, by title; in DuckDB's dialect where that differs."""
    found = {}
    for number, title, text in re.findall(r"^## (\d+)\. (.*?)$(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S):
        if int(number) <= 10:
            found[f"{number}. {title}"] = re.findall(r"^```sql\n(.*?)^```", text, re.M | re.S)[-1]
    return found


def image(events: int, threads: int) -> Process:
    """Make a process image of at most so many events, whose holds and waits have some stacks."""
    made = with_places(make_process(threads=threads, holds=min(HOLDS, events // 3)), STACKS)
    starts, ends = (np.array([getattr(thread, edge) for thread in made.threads], np.int64) for edge in ("start", "end"))
    states = thread_states(starts, ends, np.ones(threads, np.bool_), made.holds, made.waits, made.runs)
    return replace(made, states=states)


def copies(made: Process, events: int) -> Iterator[Process]:
    """The image again and again, up to so many events; alike but for their ids."""
    for number in range(max(events // 3 // HOLDS, 1)):
        yield replace(made, pid=made.pid + number)


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def write(folder: Path, events: int, threads: int) -> None:
    """Make the data set and say what that took."""
    made = image(events, threads)
    before, begin = _peak_mb(), time.perf_counter()
    write_dataset(make_timeline(made), folder, copies(made, events))
    seconds = time.perf_counter() - begin
    size = sum(file.stat().st_size for file in folder.rglob("*.parquet"))
    print(
        f"written: {events:,} events in {seconds:.0f} s, {seconds / events * 1e9:.0f} ns each; {size / 1e6:,.0f} MB, "
        f"{size / events:.1f} bytes each; {_peak_mb() - before:.0f} MB of memory above one process's timeline"
    )


def ask(folder: Path, repeat: int) -> None:
    """Time the questions."""
    begin = time.perf_counter()
    base = ColumnarProcessor(folder)
    print(f"opened in {time.perf_counter() - begin:.2f} s")
    print(f"{'question':55} {'s':>7} {'rows':>6}")
    for title, sql in questions().items():
        times = []
        for _ in range(repeat):
            begin = time.perf_counter()
            rows = base.run(sql).rows
            times.append(time.perf_counter() - begin)
        late = "" if min(times) <= TARGET_SECONDS else f"  over {TARGET_SECONDS} s"
        print(f"{title:55} {min(times):7.2f} {len(rows):6}{late}", flush=True)


def main() -> None:
    """Make a data set, or take the one that is there, and ask it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--threads", type=int, default=20)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="where the data set stays, or is from the last time")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch) / "made.parquet"
        if not is_dataset(folder):
            write(folder, options.events, options.threads)
        ask(folder, options.repeat)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


if __name__ == "__main__":
    main()

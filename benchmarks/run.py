"""What giltrace costs a program, beside all of its peers: the one table that docs/benchmarks.md shows.

    python -m benchmarks.run [--python PATH ...] [--rounds 5] [--markdown docs/benchmarks.md]

Each program times its own loop, so what tools do before and after it is not in it. Within a round all tools take turns,
and each time is set against that of the bare program in the same round, on the same interpreter. A tool runs where the
interpreter has what it needs; what does not run is told with the reason.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.table import Table

from benchmarks import peers
from benchmarks.peers import Peer
from benchmarks.tables import in_markdown
from giltrace.text import plural

PROGRAMS = {
    "two threads count": """
import threading, time
def count():
    n = 0
    while n < 4000000: n += 1
threads = [threading.Thread(target=count) for _ in range(2)]
start, busy = time.perf_counter(), time.process_time()
for t in threads: t.start()
for t in threads: t.join()
took = time.perf_counter() - start, time.process_time() - busy
""",
    "500,000 os.read": """
import os, time
fd, read = os.open("/dev/zero", os.O_RDONLY), os.read
for _ in range(20000): read(fd, 1)
start, busy = time.perf_counter(), time.process_time()
for _ in range(500000): read(fd, 1)
took = time.perf_counter() - start, time.process_time() - busy
""",
    "a pipeline of queues": """
import queue, threading, time
first, second = queue.Queue(100), queue.Queue(100)
def produce():
    for i in range(30000): first.put(i)
    first.put(None)
def work():
    while (i := first.get()) is not None: second.put(i * i)
    second.put(None)
def consume():
    while second.get() is not None: pass
threads = [threading.Thread(target=f) for f in (produce, work, consume)]
start, busy = time.perf_counter(), time.process_time()
for t in threads: t.start()
for t in threads: t.join()
took = time.perf_counter() - start, time.process_time() - busy
""",
}
#: Of this program each turn is a release and an acquire, so that what they cost can be told in ns.
PAIRS = ("500,000 os.read", 500_000)
_LONGEST_SECONDS = 60

#: How long a loop took and how much CPU time its process spent, in s.
Clocks = tuple[float, float]
CLOCKS = ("time", "CPU time")
#: By interpreter, tool and program, of each round; None where the tool failed.
Took = dict[tuple[str, str, str], list[Clocks | None]]
#: What a tool that failed said, each time, by interpreter and tool.
Failed = dict[tuple[str, str], list[str]]
_FAILURES = 3


def version(python: str) -> str:
    """What an interpreter is called: CPython 3.13.1."""
    code = "import platform; print(platform.python_implementation(), platform.python_version())"
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def run_once(peer: Peer, python: str, source: str) -> Clocks:
    """What a program's loop took beside a tool; raises `RuntimeError` with the last that was said."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program, result = folder / "program.py", folder / "took"
        end = f"open({str(result)!r}, 'w').write(repr(took))"
        program.write_text(f"{peer.begin}\n{source}\n{end}\n{peer.end}\n")
        status, said = _run(peer.command(python, program, folder), folder)
        if status != 0 or not result.exists():
            last = (said.strip() or "nothing").splitlines()[-1]
            raise RuntimeError(f"exit status {status}: {last}".replace(name, "..."))
        took, spent = result.read_text().strip("()").split(", ")
        return float(took), float(spent)


def told_load(before: float, after: float) -> str:
    """How many wanted to run, over the minute before and the last one, and what that means for the figures."""
    cores = os.cpu_count() or 1
    busy = "; others used more of it than there is, so that the time says little, and the CPU time has to do"
    return f"load average {before:.1f} before and {after:.1f} after" + (busy if max(before, after) > cores else "")


def _run(command: list[str], folder: Path) -> tuple[int, str]:
    """Run a tool to its end; its exit status and what it said. What hangs is ended with all that it has started."""
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, stdin=quiet, stdout=quiet, stderr=subprocess.PIPE, text=True, cwd=folder, start_new_session=True
    ) as process:
        try:
            _, said = process.communicate(timeout=_LONGEST_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise RuntimeError(f"did not end within {_LONGEST_SECONDS} s") from None
        return process.returncode, said


def measure(pythons: dict[str, str], rounds: int) -> tuple[Took, Failed]:
    """Measure every program beside every tool of each interpreter; the tools take turns within a round."""
    took: Took = {}
    failed: Failed = {}
    rows = [(told, python, peer) for told, python in pythons.items() for peer in peers.of(python)]
    for turn in range(rounds):
        for program, source in PROGRAMS.items():
            for told, python, peer in rows:
                times = took.setdefault((told, peer.name, program), [])
                said = failed.setdefault((told, peer.name), [])
                print(f"round {turn + 1} of {rounds}: {program}, {peer.name}, {told}", file=sys.stderr)
                try:
                    times.append(run_once(peer, python, source) if len(said) < _FAILURES else None)
                except RuntimeError as error:
                    times.append(None)
                    said.append(f"{program}, {error}")
    return took, failed


def pairs(took: Took, told: str, tool: str, program: str, clock: int) -> list[tuple[float, float]]:
    """What it took beside a tool and bare, in each round that has both."""
    both = zip(took[told, tool, program], took[told, peers.BARE, program], strict=True)
    return [(mine[clock], bare[clock]) for mine, bare in both if mine is not None and bare is not None]


def spread(values: list[float], digits: int) -> str:
    """The median of some rounds with the least and the most of them."""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def rows_of(took: Took, clock: int) -> list[list[str]]:
    """A table: the tool, the interpreter, and for each program how many times as long it took by one of the clocks."""
    rows = []
    for told, tool in dict.fromkeys((told, tool) for told, tool, _ in took):
        found = {program: pairs(took, told, tool, program, clock) for program in PROGRAMS}
        if tool == peers.BARE:
            cells = [f"{spread([bare for _, bare in both], 2)} s" if both else "failed" for both in found.values()]
            rows.append([tool, told, *cells, ""])
            continue
        ratios = [[mine / bare for mine, bare in both] for both in found.values()]
        program, turns = PAIRS
        added = [(mine - bare) / turns * 1e9 for mine, bare in found[program]]
        cells = [f"x {spread(values, 2)}" if values else "failed" for values in ratios]
        rows.append([tool, told, *cells, f"{spread(added, 0)} ns" if added else ""])
    return rows


HEAD = ["tool", "interpreter", *PROGRAMS, "added to each os.read"]


def machine() -> str:
    """The machine in words."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    kernel = ".".join(platform.release().split(".")[:2])
    return f"{platform.system()} {kernel} on {platform.machine()}, {os.cpu_count()} cores of an {model}"


def remarks(pythons: dict[str, str], failed: Failed) -> list[str]:
    """What is not in the table, and why."""
    absent = [f"{name} is not there for {told}: {why}" for told, p in pythons.items() for name, why in peers.absent(p)]
    broken = [
        f"{tool} failed in {plural(len(said), 'run')} on {told}, left out above: {'; '.join(dict.fromkeys(said))}"
        for (told, tool), said in failed.items()
        if said
    ]
    return [*absent, *broken]


def page(took: Took, rounds: int, today: datetime.date, conditions: str, said: list[str]) -> str:
    """The page of the documentation."""

    def table(clock: int) -> str:
        return in_markdown(HEAD, rows_of(took, clock))

    left = "\n".join(f"* {one}." for one in said)
    return f"""# What it costs, measured

Written by `python -m benchmarks.run --markdown docs/benchmarks.md` on {today:%Y-%m-%d}: {machine()}, {conditions}.
Figures of another machine differ; compare those of one table with each other.

## Time

{table(0)}

## CPU time

{table(1)}

## What the figures are

Each figure is how many times as long a program's loop took as bare: the median of {rounds} rounds, and in brackets the
least and the most. All tools take turns within a round, and a time is set against that of the bare program in the same
round, on the same interpreter; the rows *{peers.BARE}* have seconds. Where rounds differ much, others used the machine:
a difference within the brackets is none. CPU time is that of the whole process, which others disturb less, but it does
not have the times in which a tool stopped the program. What a tool does before and after the program is not counted.
What they see for it, by which they differ more than by what they cost, is on the page on
[other tools](comparison.md); whether what giltrace forecasts comes true, on [another](forecasts.md).

{peers.CONDITIONS}

## What is not in the table

{left or "Nothing."}
"""


def main() -> None:
    """Measure, print the table, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--python", nargs="+", type=os.path.abspath, default=[sys.executable], help="interpreters (default: this one)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--markdown", type=Path, help="write the page of the documentation here")
    options = parser.parse_args()
    pythons = {version(python): python for python in options.python}
    before = os.getloadavg()[0]
    try:
        took, failed = measure(pythons, options.rounds)
    finally:
        peers.clean_up()
    console = Console(width=180)
    for clock, name in enumerate(CLOCKS):
        table = Table(*HEAD, title=f"{name} against bare ({options.rounds} rounds: median, least and most)")
        for row in rows_of(took, clock):
            table.add_row(*row)
        console.print(table)
    said = remarks(pythons, failed)
    conditions = told_load(before, os.getloadavg()[0])
    for one in (machine(), conditions, *said):
        console.print(one)
    if options.markdown is not None:
        options.markdown.write_text(page(took, options.rounds, datetime.date.today(), conditions, said))


if __name__ == "__main__":
    main()

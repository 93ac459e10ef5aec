"""How much of the time is the GIL held, by what each tool says and by what is true?

    python benchmarks/held_share.py [--python PATH] [--newest PATH] [--seconds 4] [--markdown]

The program's threads hold the GIL for a given time, in a function in C that keeps it and says how long it took, and
sleep without it in between, in another. What Python does with the GIL from the one to the other is added: the program
measures that first, alone, from when the one ended to when the other began. A cell is what a tool said less the truth,
in points of a hundred; the last line is the processor time that a tool took, in the program and beside it, in parts of
a thousand of the time. `--python` needs the packages gilknocker and gil_load; `--newest` is a 3.15.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.peers import no_module
from benchmarks.tables import show
from giltrace.launch.counting import counting_environment
from giltrace.metrics.page import Pages

PROGRAM = """
import ctypes, json, os, random, statistics, sys, threading, time
threads, share, hold, seconds, begin, end, library = %s
kept, free = ctypes.PyDLL(library), ctypes.CDLL(library)
hold_gil, idle, now = kept.hold, free.idle, time.perf_counter_ns
hold_gil.restype = ctypes.c_longlong
pause, held, holds = hold * (threads / share - 1), [0] * threads, [0] * threads
def work(i, until, pause, around=None):
    chance, mine, count = random.Random(i), 0, 0
    stamps = (ctypes.c_longlong * 2)()
    idle(int(chance.random() * min(pause, 0.5) * 1e9), stamps)
    while now() < until:
        slept = hold_gil(int(hold * 1e9))
        mine += slept
        count += 1
        before = stamps[1]
        idle(int(pause * (0.5 + chance.random()) * 1e9), stamps)
        if around is not None: around.append(stamps[0] - before - slept)
    held[i], holds[i] = mine, count
around = []
work(0, now() + int(max(0.2, 10 * hold) * 1e9), min(pause, 0.001), around)
around = statistics.median(around)
exec(begin)
print("ready", flush=True)
sys.stdin.readline()
before, cpu = now(), time.process_time()
until = before + int(seconds * 1e9)
some = [threading.Thread(target=work, args=(i, until, pause)) for i in range(threads)]
for t in some: t.start()
for t in some: t.join()
took, cpu = now() - before, time.process_time() - cpu
said = None
exec(end)
share = (sum(held) + sum(holds) * around) / took
print(json.dumps({"share": share, "seconds": took / 1e9, "cpu": cpu, "said": said}), flush=True)
sys.stdin.readline()
"""

SLEEPERS = """
#include <time.h>
static long long now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}
static void sleep_for(long long ns) {
    struct timespec length = {ns / 1000000000, ns % 1000000000};
    nanosleep(&length, 0);
}
long long hold(int ns) {
    long long begin = now();
    sleep_for(ns);
    return now() - begin;
}
void idle(int ns, long long stamps[2]) {
    stamps[0] = now();
    sleep_for(ns);
    stamps[1] = now();
}
"""

#: Threads, share of the time that the GIL is held, seconds of each hold.
CASES = (
    (1, 0.01, 0.00005),
    (1, 0.50, 0.00005),
    (1, 0.50, 0.001),
    (1, 0.50, 0.05),
    (1, 0.90, 0.01),
    (1, 0.99, 0.5),
    (4, 0.10, 0.001),
    (4, 0.50, 0.001),
    (4, 0.80, 0.02),
    (16, 0.50, 0.0005),
    (64, 0.30, 0.001),
    (64, 0.90, 0.005),
)


@dataclass
class Run:
    """A program at work: what a tool is told of it, and what it has to say."""

    process: subprocess.Popen[str]
    folder: Path
    seconds: float
    truth: dict[str, float]
    said: float = float("nan")
    beside: float = 0.0


Tool = Callable[[Run], None]


def _go(run: Run) -> None:
    assert run.process.stdin is not None
    run.process.stdin.write("\n")
    run.process.stdin.flush()


def _heard(run: Run) -> None:
    assert run.process.stdout is not None
    run.truth = json.loads(run.process.stdout.readline())


def from_within(run: Run) -> None:
    """The program has the figure itself, or there is none."""
    _go(run)
    _heard(run)
    run.said = run.truth["said"] if run.truth["said"] is not None else float("nan")


def counting(run: Run) -> None:
    """Its counters, read twice."""
    pages = Pages(run.folder)
    (before,) = pages.read()
    _go(run)
    _heard(run)
    (after,) = pages.read()
    run.said = (after.counts.held_ns - before.counts.held_ns) / (run.truth["seconds"] * 1e9)


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


#: A tool that comes from outside takes so long to begin, and looks while the program is still at work.
_BEGIN_SECONDS = 2.0


def _beside(run: Run, words: list[str]) -> None:
    """Run a tool beside the program, which goes on for longer than that looks."""
    before = _children()
    _go(run)
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as tool:
        _heard(run)
        tool.wait(60)
    run.beside = _children() - before


def observing(run: Run) -> None:
    """`giltrace attach --observe`."""
    words = [sys.executable, "-m", "giltrace", "attach", "--observe", str(run.process.pid), "--no-trace"]
    _beside(run, [*words, "-d", f"{run.seconds}s", "-o", str(run.folder / "o")])
    report = [sys.executable, "-m", "giltrace", "report", str(run.folder / "o"), "--json"]
    said = json.loads(subprocess.run(report, capture_output=True, check=True, text=True).stdout)
    (process,) = said["processes"]
    (gil,) = process["gils"]
    run.said = gil["held_ns"] / (gil["held_ns"] + gil["free_ns"])


def _samples(path: Path) -> int:
    return sum(int(line.rpartition(" ")[2]) for line in path.read_text().splitlines()) if path.exists() else 0


def pyspy(run: Run) -> None:
    """`py-spy record --gil`, 1000 Hz."""
    out = run.folder / "raw"
    tool = str(Path(sys.executable).with_name("py-spy"))
    words = [tool, "record", "--gil", "-r", "1000", "-d", str(round(run.seconds)), "-f", "raw", "-o", str(out)]
    _beside(run, [*words, "--pid", str(run.process.pid)])
    run.said = _samples(out) / (1000 * round(run.seconds))


def tachyon(run: Run) -> None:
    """`profiling.sampling attach --mode gil`, 1 kHz, of 3.15."""
    out = run.folder / "collapsed"
    program = f"/proc/{run.process.pid}/exe"
    words = [os.readlink(program), "-m", "profiling.sampling", "attach", "-a", "--mode", "gil", "-r", "1khz"]
    _beside(run, [*words, "-d", str(round(run.seconds)), "--collapsed", "-o", str(out), str(run.process.pid)])
    run.said = _samples(out) / (1000 * round(run.seconds))


@dataclass(frozen=True)
class Way:
    """A tool, what the program has to do for it, the module that it needs, and whether that is the newest's only."""

    name: str
    tool: Tool
    begin: str = "pass"
    end: str = "pass"
    module: str = ""
    newest: bool = False
    counts: bool = False
    under: tuple[str, ...] = ()


WAYS = (
    Way("bare", from_within),
    Way("giltrace metrics", counting, counts=True),
    Way("giltrace --observe", observing),
    Way("py-spy --gil", pyspy),
    Way("profiling.sampling, 3.15", tachyon, module="profiling.sampling", newest=True),
    Way(
        "gilknocker",
        from_within,
        "from gilknocker import KnockKnock; knocker = KnockKnock(1000); knocker.start()",
        "said = knocker.contention_metric; knocker.stop()",
        "gilknocker",
    ),
    Way(
        "gil_load",
        from_within,
        "import gil_load; gil_load.init(); gil_load.start()",
        "gil_load.stop(); said = gil_load.get()[0]['held']",
        "gil_load",
        under=("-m", "gil_load"),
    ),
)


def run_once(way: Way, python: str, case: tuple[int, float, float], seconds: float) -> Run:
    """Let a program be at work while a tool looks at it."""
    threads, share, hold = case
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        library = folder / "hold.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=SLEEPERS, text=True, check=True)
        working = seconds + (_BEGIN_SECONDS if way.tool in (observing, pyspy, tachyon) else 0)
        code = PROGRAM % repr((threads, share, hold, working, way.begin, way.end, str(library)))
        env = counting_environment(folder) if way.counts else None
        (folder / "program.py").write_text(code)
        words = [python, *way.under, str(folder / "program.py")]
        pipe = subprocess.PIPE
        with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True, env=env) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            run = Run(process, folder, seconds, {})
            way.tool(run)
            process.communicate("\n")
    return run


def main() -> None:
    """Measure each case with each tool, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="with gilknocker and gil_load (default: this one)")
    parser.add_argument("--newest", default="python3.15", help="a 3.15 (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=4, help="of each run (default: %(default)s)")
    parser.add_argument("--markdown", action="store_true", help="print the table for the documentation")
    options = parser.parse_args()
    ways, absent = list[tuple[Way, str]](), list[str]()
    for way in WAYS:
        python = options.newest if way.newest else options.python
        why = no_module(way.module, python)
        if why:
            absent.append(f"{way.name} is not there: {why}")
        else:
            ways.append((way, python))
    rows, errors, costs = list[list[str]](), dict[str, list[float]](), dict[str, list[float]]()
    for case in CASES:
        threads, _, hold = case
        cells = [str(threads), f"{hold * 1000:g} ms"]
        idle = 0.0
        for way, python in ways:
            run = run_once(way, python, case, options.seconds)
            cost = (run.truth["cpu"] + run.beside) / run.truth["seconds"]
            if way.name == "bare":
                idle, truth = cost, run.truth["share"]
                cells.append(f"{100 * truth:.1f} %")
                continue
            error = 100 * (run.said - run.truth["share"])
            errors.setdefault(way.name, []).append(abs(error))
            costs.setdefault(way.name, []).append(1000 * (cost - idle))
            cells.append(f"{error:+.1f}")
        rows.append(cells)
        print(*cells, sep="\t", file=sys.stderr)
    names = [way.name for way, _ in ways[1:]]
    rows.append(["", "worst", "", *(f"{max(errors[name]):.1f}" for name in names)])
    rows.append(["", "median", "", *(f"{statistics.median(errors[name]):.1f}" for name in names)])
    rows.append(["", "cost, 1/1000", "", *(f"{statistics.median(costs[name]):.0f}" for name in names)])
    head = ["threads", "a hold", "held in truth", *names]
    show(head, rows, markdown=options.markdown, left=0)
    for line in absent:
        print(line)


if __name__ == "__main__":
    main()

"""What giltrace adds to a program's time at its start and its end, and how long a look at giltrace takes.

    python benchmarks/start.py [--rounds 30] [--only NAME] [--against FOLDER[:FOLDER]]

In each round all commands take turns, each right after the program alone. A line has the medians of wall time and CPU
time (of all processes), how far each pair's are apart, with the quartiles, and how many times as long it took. Bytecode
is cached before, as installing does. `--only` measures the commands of that name. `--against` are folders that another
giltrace, and what it needs, are imported from: it is measured in the same rounds.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

#: What is recorded: nothing at all, and something that runs for longer than all imports take.
NOTHING, WAITING = "", "import time; time.sleep(0.5)"
GILTRACE = ("-m", "giltrace")


class Command(NamedTuple):
    """What is run, and the program that it is held against."""

    name: str
    words: tuple[str, ...]
    program: str = NOTHING
    completes: bool = False


class Took(NamedTuple):
    """Of one run, in ms."""

    wall: float
    cpu: float


def commands(out: Path) -> list[Command]:
    """The commands; recordings go to `out`."""
    record = (*GILTRACE, "record", "--force", "-o", str(out / "it"))
    return [
        Command("--help", (*GILTRACE, "--help")),
        Command("--version", (*GILTRACE, "--version")),
        Command("record --help", (*GILTRACE, "record", "--help")),
        Command("completion", (*GILTRACE, "record", "--with", ""), completes=True),
        Command("record --light", (*record, "--light", "-c", NOTHING)),
        Command("record --light --no-trace", (*record, "--light", "--no-trace", "-c", NOTHING)),
        Command("record --light, of 0.5 s", (*record, "--light", "-c", WAITING), WAITING),
        Command("record", (*record, "-c", NOTHING)),
    ]


def run(words: tuple[str, ...], env: dict[str, str], folder: Path) -> Took:
    """Run this Python with `words` in `folder`: in another there might be a giltrace to import."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    null = subprocess.DEVNULL
    subprocess.run([sys.executable, *words], env=env, cwd=folder, stdout=null, stderr=null, check=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(wall * 1e3, cpu * 1e3)


def spread(of: list[float]) -> str:
    """The median, and the quartiles."""
    low, middle, high = statistics.quantiles(of, n=4, method="inclusive")
    return f"{middle:+.0f} ({low:+.0f} to {high:+.0f})"


def line(name: str, pairs: list[tuple[Took, Took]]) -> str:
    """What a command took in all rounds, with what the program alone did just before."""
    wall, cpu = (statistics.median(took) for took in zip(*(took for _, took in pairs), strict=True))
    above = [spread([took[at] - alone[at] for alone, took in pairs]) for at in (0, 1)]
    times = statistics.median(took.wall / alone.wall for alone, took in pairs)
    return f"{name:34} {wall:8.0f} {cpu:8.0f} {above[0]:>24} {above[1]:>24} {times:8.1f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--only", action="append", default=[], metavar="NAME")
    parser.add_argument("--against", default="", metavar="FOLDER[:FOLDER]")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        bare = {one: value for one, value in os.environ.items() if one != "PYTHONDONTWRITEBYTECODE"}
        bare["PYTHONPYCACHEPREFIX"] = str(out / "bytecode")
        here = {**bare, "PYTHONPATH": str(Path(__file__).parents[1])}
        kinds = {"": here, **({"before: ": {**bare, "PYTHONPATH": asked.against}} if asked.against else {})}
        pairs: dict[tuple[str, Command], list[tuple[Took, Took]]] = {}
        for turn in range(asked.rounds + 1):
            for kind, env in kinds.items():
                for one in commands(out):
                    if asked.only and one.name not in asked.only:
                        continue
                    shell = {"_GILTRACE_COMPLETE": "bash"} if one.completes else {}
                    pair = run(("-c", one.program), bare, out), run(one.words, {**env, **shell}, out)
                    if turn:  # the first filled the caches
                        pairs.setdefault((kind, one), []).append(pair)
        print(f"{'':34} {'wall ms':>8} {'CPU ms':>8} {'above: wall':>24} {'CPU':>24} {'times':>8}")
        for (kind, one), took in pairs.items():
            print(line(kind + one.name, took))


if __name__ == "__main__":
    main()

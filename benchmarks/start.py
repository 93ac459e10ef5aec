"""What giltrace adds to a program's time at its start and its end, and how long a look at giltrace takes.

    python benchmarks/start.py [--rounds 20] [--against FOLDER[:FOLDER]]

Each line is the median of rounds in which all commands take turns: wall time and CPU time (of all processes), and how
far they are above those of the program alone. Bytecode is cached before, as installing does. `--against` are folders
that another giltrace, and what it needs, are imported from: it is measured in the same rounds.
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


def run(words: tuple[str, ...], env: dict[str, str]) -> Took:
    """Run this Python with `words`."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *words], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(wall * 1e3, cpu * 1e3)


def median(of: list[Took]) -> Took:
    """The median of both."""
    return Took(statistics.median(one.wall for one in of), statistics.median(one.cpu for one in of))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--against", default="", metavar="FOLDER[:FOLDER]")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        out = Path(name)
        bare = {one: value for one, value in os.environ.items() if one != "PYTHONDONTWRITEBYTECODE"}
        bare["PYTHONPYCACHEPREFIX"] = str(out / "bytecode")
        here = {**bare, "PYTHONPATH": str(Path(__file__).parents[1])}
        kinds = {"": here, **({"before: ": {**bare, "PYTHONPATH": asked.against}} if asked.against else {})}
        alone: dict[str, list[Took]] = {NOTHING: [], WAITING: []}
        took: dict[tuple[str, Command], list[Took]] = {}
        for turn in range(asked.rounds + 1):
            if turn == 1:  # the first filled the caches
                alone, took = {program: [] for program in alone}, {}
            for program, times in alone.items():
                times.append(run(("-c", program), bare))
            for kind, env in kinds.items():
                for one in commands(out):
                    shell = {"_GILTRACE_COMPLETE": "bash"} if one.completes else {}
                    took.setdefault((kind, one), []).append(run(one.words, {**env, **shell}))
        print(f"{'':34} {'wall ms':>8} {'CPU ms':>8} {'above the program: wall':>24} {'CPU':>6}")
        for program, times in alone.items():
            wall, cpu = median(times)
            print(f"{program or 'bare':34} {wall:8.0f} {cpu:8.0f}")
        for (kind, one), times in took.items():
            (wall, cpu), (wall_alone, cpu_alone) = median(times), median(alone[one.program])
            print(f"{kind + one.name:34} {wall:8.0f} {cpu:8.0f} {wall - wall_alone:+24.0f} {cpu - cpu_alone:+6.0f}")


if __name__ == "__main__":
    main()

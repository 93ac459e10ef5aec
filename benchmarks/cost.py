"""What tracing costs the program, against py-spy, viztracer and uprobes, as ratios to the bare program in one run.

    python benchmarks/cost.py [--python PATH] [--rounds 5]

Three programs: 1,000,000 `os.read` calls (a release and an acquire each), two threads counting, 1,000,000 calls of
a Python function. Each program times its own loop, so the start-up of the tools is not in it. The conditions take turns
within a round; the table shows medians over the rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from giltrace import native

PROGRAMS = {
    "1 M os.read": """
import os, time
fd, read = os.open("/dev/zero", os.O_RDONLY), os.read
for _ in range(20000): read(fd, 1)
start = time.perf_counter()
for _ in range(1000000): read(fd, 1)
took = time.perf_counter() - start
""",
    "cpu_bound": """
import threading, time
def count():
    n = 0
    while n < 5000000: n += 1
threads = [threading.Thread(target=count) for _ in range(2)]
start = time.perf_counter()
for t in threads: t.start()
for t in threads: t.join()
took = time.perf_counter() - start
""",
    "1 M calls": """
import time
def f(): pass
for _ in range(20000): f()
start = time.perf_counter()
for _ in range(1000000): f()
took = time.perf_counter() - start
""",
}

Command = Callable[[str, Path, Path], list[str]]


def record(*options: str) -> Command:
    """A program under `giltrace record` with these options."""

    def command(python: str, program: Path, folder: Path) -> list[str]:
        words = [sys.executable, "-m", "giltrace", "record", *options, "--python", python, "-o", str(folder / "r")]
        return [*words, "-f", str(program)]

    return command


def _pyspy(rate: int, *options: str) -> Command:
    def command(python: str, program: Path, folder: Path) -> list[str]:
        tool = str(Path(sys.executable).with_name("py-spy"))
        words = [tool, "record", "-r", str(rate), *options, "-f", "raw", "-o", str(folder / "s"), "--"]
        return [*words, python, str(program)]

    return command


def _viztracer(python: str, program: Path, folder: Path) -> list[str]:
    words = [sys.executable, "-m", "viztracer", "--quiet", "--tracer_entries", "100000", "-o", str(folder / "v.json")]
    return [*words, str(program)]


def _uprobes(python: str, program: Path, folder: Path) -> list[str]:
    events = [word for name in ("take", "drop", "took__return") for word in ("-e", f"giltrace_bench:{name}")]
    return ["perf", "record", "-q", "-o", str(folder / "p"), *events, "--", python, str(program)]


def conditions(python: str) -> dict[str, Command]:
    """Every condition that this machine can run, by name."""
    found: dict[str, Command] = {"bare": lambda python, program, folder: [python, str(program)]}
    found["giltrace --light"] = record("--light")
    found["giltrace, all collectors"] = record("--spans")
    found["giltrace"] = record()
    found["py-spy 100 Hz"] = _pyspy(100)
    found["py-spy 1000 Hz"] = _pyspy(1000)
    found["py-spy 1000 Hz --nonblocking"] = _pyspy(1000, "--nonblocking")
    if importlib.util.find_spec("viztracer") and os.path.realpath(python) == os.path.realpath(sys.executable):
        found["viztracer"] = _viztracer
    if _place_uprobes(python):
        found["perf record, 3 uprobes"] = _uprobes
    return found


def _place_uprobes(python: str) -> bool:
    """Probe the entry of take_gil and drop_gil and the return of take_gil, as the earlier tools did."""
    if os.geteuid() != 0 or shutil.which("perf") is None:
        return False
    code = "import re; print(*{m for m in re.findall(r'/\\S*libpython3\\S*', open('/proc/self/maps').read())})"
    shared = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    binary = shared[0] if shared else os.path.realpath(python)
    for probe in ("take=take_gil", "drop=drop_gil", "took=take_gil%return"):
        add = ["perf", "probe", "-q", "-x", binary, f"giltrace_bench:{probe}"]
        if subprocess.run(add, capture_output=True, check=False).returncode != 0:
            return False
    return True


def _remove_uprobes() -> None:
    if shutil.which("perf"):
        subprocess.run(["perf", "probe", "-q", "-d", "giltrace_bench:*"], capture_output=True, check=False)


def measure(command: Command, python: str, source: str) -> float:
    """Run one program under one tool and return the seconds that its loop took."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program, result = folder / "program.py", folder / "took"
        program.write_text(f"{source}\nopen({str(result)!r}, 'w').write(repr(took))\n")
        subprocess.run(command(python, program, folder), capture_output=True, check=True, cwd=folder)
        return float(result.read_text())


def programs_table(python: str, rounds: int) -> Table:
    """Measure every program under every condition, the conditions taking turns."""
    tools = conditions(python)
    took: dict[tuple[str, str], list[float]] = {}
    try:
        for _ in range(rounds):
            for label, source in PROGRAMS.items():
                for tool, command in tools.items():
                    took.setdefault((tool, label), []).append(measure(command, python, source))
    finally:
        _remove_uprobes()
    table = Table("condition", *PROGRAMS, "per os.read", title=f"time against bare ({rounds} rounds, medians)")
    for tool in tools:
        ratios = []
        for label in PROGRAMS:
            pairs = zip(took[tool, label], took["bare", label], strict=True)
            ratios.append(f"x {statistics.median(mine / bare for mine, bare in pairs):.3f}")
        pairs = zip(took[tool, "1 M os.read"], took["bare", "1 M os.read"], strict=True)
        added = statistics.median((mine - bare) * 1000 for mine, bare in pairs)
        table.add_row(tool, *ratios, f"{added:+.0f} ns")
    return table


def startup_table(python: str, rounds: int) -> Table:
    """Whole commands: what giltrace adds before and after the program."""
    with tempfile.TemporaryDirectory() as folder:
        light = [
            sys.executable,
            "-m",
            "giltrace",
            "record",
            "--light",
            "--python",
            python,
            "-fo",
            f"{folder}/x",
            "-c",
            "",
        ]
        commands = {
            "python -c ''": [python, "-c", ""],
            "giltrace record --light -c ''": light,
            "giltrace --help": [sys.executable, "-m", "giltrace", "--help"],
        }
        took: dict[str, list[float]] = {label: [] for label in commands}
        for _ in range(rounds * 2):
            for label, command in commands.items():
                start = time.perf_counter()
                subprocess.run(command, capture_output=True, check=True)
                took[label].append(time.perf_counter() - start)
    table = Table("command", "median", title="whole commands")
    for label, seconds in took.items():
        table.add_row(label, f"{statistics.median(seconds) * 1000:.0f} ms")
    return table


def print_tables(document: str, table: Callable[[str, int], Table]) -> None:
    """Print a table per interpreter, as the command line asks for; `document` says what of, and how often."""
    parser = argparse.ArgumentParser(description=document.partition("\n")[0])
    parser.add_argument("--python", nargs="+", default=[sys.executable], help="interpreters (default: this one)")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    console = Console(width=110)
    for python in options.python:
        console.print(table(python, options.rounds))
    console.print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--python", default=sys.executable, help="interpreter to trace (default: this one)")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    console = Console(width=120)
    console.print(f"hooks alone, in a tight loop: {native.pair_cost_ns():.0f} ns per release+acquire pair")
    console.print(programs_table(options.python, options.rounds))
    console.print(startup_table(options.python, options.rounds))


if __name__ == "__main__":
    main()

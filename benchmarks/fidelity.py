"""Does a traced program hand the GIL on as it does bare?

    python benchmarks/fidelity.py [--rounds 7] [--python PATH]

Which of two waiters gets the GIL is a race that a microsecond decides: the one that asked for it is often still awake
when the holder lets go, and takes the signal that was for who had waited longer. A tracer that delays either side makes
another program of it. The steps of `convoy` pay for each lost race with a switch interval, so how long they take tells;
with one thread that counts there is no race. The ways take turns; a cell is the median of the rounds and, in brackets,
the least and the most.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

CONVOY = Path(__file__).parent.parent / "workloads" / "convoy.py"
RECORD = [sys.executable, "-m", "giltrace", "record", "--light", "--force"]
WAYS = {"bare": None, "no stacks": ["--stacks", "none"], "light": []}


def took(python: str, threads: int, options: list[str] | None, folder: str) -> float:
    """Seconds that the steps of one convoy took, as it says itself."""
    command = [python, str(CONVOY), "--threads", str(threads)]
    if options is not None:
        command = [*RECORD, *options, "-o", f"{folder}/convoy", "--", *command]
    said = subprocess.run(command, check=True, capture_output=True, text=True)
    found = re.search(r"took ([\d.]+) s", said.stdout + said.stderr)
    assert found is not None, said
    return float(found[1])


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--python", default=sys.executable)
    given = parser.parse_args()
    table = Table("threads that count", *WAYS, title="200 sleeps of 1 ms, in seconds")
    with tempfile.TemporaryDirectory() as folder:
        for threads in (1, 2, 3):
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for _ in range(given.rounds):
                for way, options in WAYS.items():
                    times[way].append(took(given.python, threads, options, folder))
            cells = [f"{statistics.median(some):.2f} ({min(some):.2f}-{max(some):.2f})" for some in times.values()]
            table.add_row(str(threads), *cells)
    Console().print(table)


if __name__ == "__main__":
    main()

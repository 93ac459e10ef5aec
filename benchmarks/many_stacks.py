"""What recording Python stacks costs where they are many, or their code comes and goes, over the same program untraced.

    python benchmarks/many_stacks.py [--python PATH ...] [--rounds 7]

The program reads a byte at the bottom of a stack of depth 16, each time another one of 40,000 or 100,000: when they are
new, and when they come again, in the same order. And it compiles, executes and drops a piece of code that reads two
bytes. A figure is CPU time per pair of a release and an acquire, or per step; for what can be repeated the least of ten
repetitions, since whatever else the machine does only adds. The conditions take turns within a round, and the table
shows the medians of the differences.
"""

from __future__ import annotations

import statistics
import subprocess
import tempfile
from pathlib import Path

from cost import Command, print_tables, record
from rich.table import Table

PROGRAM = """
import os, sys, time
fd, read = os.open("/dev/zero", os.O_RDONLY), os.read
def stand(left, bits):
    if left == 0:
        if bits == 0: read(fd, 1)
        elif bits == 1: read(fd, 1)
        elif bits == 2: read(fd, 1)
        elif bits == 3: read(fd, 1)
        else: read(fd, 1)
    elif bits & 1:
        stand(left - 1, bits >> 1)
    else:
        stand(left - 1, bits >> 1)
def timed(steps, step):
    start = time.process_time()
    for i in range(steps): step(i)
    return (time.process_time() - start) / steps
code = "def f():\\n    return read(fd, 1)\\nf()\\nread(fd, 1)\\n"
def execute(i):
    exec(compile(code, "<made>", "exec"), {"read": read, "fd": fd})
def place(i): stand(14, i)
took = []
for count in (40000, 100000):
    new = timed(count, place)
    took += [new, min(timed(count, place) for _ in range(10))]
took.append(min(timed(2000, execute) for _ in range(10)))
took = " ".join(map(repr, took))
"""

#: What the program measures, in its order, and what is asked for in ns.
FIGURES = {
    "40,000, new": "3000",
    "40,000, known": "300",
    "100,000, three in five new": "",
    "100,000, known": "300",
    "compile and exec, a step": "",
}

CONDITIONS: dict[str, Command] = {
    "untraced": lambda python, program, folder: [python, str(program)],
    **{f"--stacks {kind}": record("--light", "--stacks", kind) for kind in ("none", "full")},
}


def run(command: Command, python: str) -> list[float]:
    """Run the program under one condition and return its figures in ns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program, result = folder / "program.py", folder / "took"
        program.write_text(f"{PROGRAM}\nopen({str(result)!r}, 'w').write(took)\n")
        subprocess.run(command(python, program, folder), capture_output=True, check=True, cwd=folder)
        return [float(each) * 1e9 for each in result.read_text().split()]


def stacks_table(python: str, rounds: int) -> Table:
    """Measure all under each condition, the conditions taking turns."""
    took: dict[str, list[list[float]]] = {condition: [] for condition in CONDITIONS}
    for _ in range(rounds):
        for condition, command in CONDITIONS.items():
            took[condition].append(run(command, python))
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    table = Table(title=f"{version}: ns over untraced ({rounds} rounds, medians)")
    table.add_column("stacks")
    for name in (*CONDITIONS, "target"):
        table.add_column(name, justify="right")
    for at, (figure, target) in enumerate(FIGURES.items()):
        bare = [each[at] for each in took["untraced"]]
        added = [
            statistics.median(mine[at] - own for mine, own in zip(took[condition], bare, strict=True))
            for condition in list(CONDITIONS)[1:]
        ]
        table.add_row(figure, f"{statistics.median(bare):.0f}", *(f"{ns:+.0f}" for ns in added), target)
    return table


if __name__ == "__main__":
    print_tables(__doc__ or "", stacks_table)

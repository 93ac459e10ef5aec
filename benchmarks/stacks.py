"""What recording Python stacks costs per release and acquire, over the same program untraced.

    python benchmarks/stacks.py [--python PATH ...] [--rounds 7]

The program reads single bytes at the bottom of a stack of known depth: at one instruction, so that the stack stays the
same, or at two by turns, so that it changes at each pair. A figure is the fastest of 100 batches of 10,000 pairs, since
whatever else the machine does only adds; the conditions take turns within a round, and the table shows the medians of
the differences.
"""

from __future__ import annotations

import statistics
import subprocess

from cost import Command, measure, print_tables, record
from rich.table import Table

#: Asked for at depth 10, in ns.
TARGET_NS = 90

PROGRAM = """
import os, time
fd, read = os.open("/dev/zero", os.O_RDONLY), os.read
def unchanging(pairs):
    for _ in range(pairs // 2):
        for _ in (0, 1): read(fd, 1)
def changing(pairs):
    for _ in range(pairs // 2):
        read(fd, 1)
        read(fd, 1)
def below(depth, loop):
    if depth > 2:
        return below(depth - 1, loop)
    took = []
    for _ in range(100):
        start = time.perf_counter()
        loop(10000)
        took.append(time.perf_counter() - start)
    return min(took) / 10000
took = below(DEPTH - 1, LOOP)
"""

#: The stack that the program reads at: its depth, the module included, and which of its loops.
SHAPES: dict[str, tuple[int, str]] = {
    "depth 10, unchanging": (10, "unchanging"),
    "depth 10, changing at each pair": (10, "changing"),
    "depth 30, unchanging": (30, "unchanging"),
    "depth 30, changing at each pair": (30, "changing"),
}


def _bare(python: str, program: object, folder: object) -> list[str]:
    return [python, str(program)]


CONDITIONS: dict[str, Command] = {
    "untraced": _bare,
    **{f"--stacks {kind}": record("--light", "--stacks", kind) for kind in ("none", "top", "full")},
}


def stacks_table(python: str, rounds: int) -> Table:
    """Measure each shape under each condition, the conditions taking turns."""
    took: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for shape, (depth, loop) in SHAPES.items():
            source = PROGRAM.replace("DEPTH", str(depth)).replace("LOOP", loop)
            for condition, command in CONDITIONS.items():
                took.setdefault((shape, condition), []).append(measure(command, python, source) * 1e9)
    version = subprocess.run([python, "-V"], capture_output=True, text=True, check=True).stdout.strip()
    table = Table(title=f"{version}: ns per release+acquire pair over untraced ({rounds} rounds, medians)")
    table.add_column("stack at the release")
    for condition in CONDITIONS:
        table.add_column(condition, justify="right")
    table.add_column("target", justify="right")
    for shape, (depth, _) in SHAPES.items():
        bare = took[shape, "untraced"]
        added = [
            statistics.median(mine - own for mine, own in zip(took[shape, condition], bare, strict=True))
            for condition in list(CONDITIONS)[1:]
        ]
        target = f"{TARGET_NS}" if depth == 10 else ""
        table.add_row(shape, f"{statistics.median(bare):.0f}", *(f"+{ns:.0f}" for ns in added), target)
    return table


if __name__ == "__main__":
    print_tables(__doc__ or "", stacks_table)

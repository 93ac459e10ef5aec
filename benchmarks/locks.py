"""What it costs a program that its locks are watched, over the same program untraced.

    python benchmarks/locks.py [--python PATH ...] [--rounds 7]

A pair takes a `threading.Lock` that nobody else wants, and gives it back. A hop is a thread that sleeps in a lock until
another one, which goes to sleep then, gives it back: a block, a wake, and a release and an acquire of the GIL by each.
Both figures are of the fastest of 100 batches, since whatever else the machine does only adds. The third program has
four threads that count under one lock, as the workload `lock_contention` does, and is compared as a whole. All of them
run on one core, since on which one the next thread is woken decides how long that takes, and figures are of the time
that they computed, the kernel's for them included. The conditions take turns within a round; the table shows medians
over the rounds.
"""

from __future__ import annotations

import statistics

from cost import Command, measure, print_tables, record
from rich.table import Table

PROGRAMS = {
    "pair": """
import threading, time
def pairs(acquire, release):
    for _ in range(2500):
        acquire(); release()
        acquire(); release()
        acquire(); release()
        acquire(); release()
lock = threading.Lock()
best = 1.0
for _ in range(100):
    start = time.process_time()
    pairs(lock.acquire, lock.release)
    best = min(best, time.process_time() - start)
took = best / 10000
""",
    "hop": """
import threading, time
here, there = threading.Lock(), threading.Lock()
HOPS, BATCHES = 500, 100
def hop(mine, others, times):
    for _ in range(times):
        mine()
        others()
here.acquire()
there.acquire()
other = threading.Thread(target=hop, args=(there.acquire, here.release, HOPS * BATCHES))
other.start()
best = 1.0
for _ in range(BATCHES):
    start = time.process_time()
    hop(there.release, here.acquire, HOPS)
    best = min(best, time.process_time() - start)
other.join()
took = best / HOPS / 2
""",
    "lock_contention": """
import threading, time
lock = threading.Lock()
def steps():
    for _ in range(150):
        with lock:
            number = 0
            while number < 30000: number += 1
threads = [threading.Thread(target=steps) for _ in range(4)]
start = time.process_time()
for thread in threads: thread.start()
for thread in threads: thread.join()
took = time.process_time() - start
""",
}
#: Before each of them.
_ON_ONE_CORE = "import os; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})"


def _bare(python: str, program: object, folder: object) -> list[str]:
    return [python, str(program)]


CONDITIONS: dict[str, Command] = {"untraced": _bare, "--light": record("--light")}


def locks_table(python: str, rounds: int) -> Table:
    """Measure every program under every condition, the conditions taking turns."""
    took: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name, source in PROGRAMS.items():
            for condition, command in CONDITIONS.items():
                took.setdefault((name, condition), []).append(measure(command, python, _ON_ONE_CORE + source))
    table = Table("program", *CONDITIONS, "difference", title=f"{python} ({rounds} rounds, medians)")
    for name in PROGRAMS:
        bare, traced = (took[name, condition] for condition in CONDITIONS)
        if name == "lock_contention":
            ratio = statistics.median(mine / other for mine, other in zip(traced, bare, strict=True))
            table.add_row(name, *(f"{statistics.median(each):.3f} s" for each in (bare, traced)), f"x {ratio:.3f}")
            continue
        added = statistics.median(mine - other for mine, other in zip(traced, bare, strict=True))
        table.add_row(
            name, *(f"{statistics.median(each) * 1e9:.1f} ns" for each in (bare, traced)), f"{added * 1e9:+.1f} ns"
        )
    return table


def main() -> None:
    """Print a table per interpreter."""
    print_tables(__doc__ or "", locks_table)


if __name__ == "__main__":
    main()

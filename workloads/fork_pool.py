"""A pool of two forked processes counts: each has a GIL of its own, and the parent's threads only pass work on.

`multiprocessing.Pool` runs three threads in the parent, which move tasks and results through pipes. They hold the GIL
for moments.

What to look for: a verdict for each process. The workers are single-threaded: their GIL costs nothing, and both count
at the same time. The parent is idle or I/O-bound. What a pool costs is not the GIL but the pickling of its tasks: make
them larger with `--count`, or smaller, and see the gaps between a worker's holds.

Truth: verdict = single-threaded
Truth: processes >= 3
Truth: wait_share <= 0.1
Truth: gils_at_once >= 1.2
"""

import argparse
import multiprocessing
import time


def count(limit):
    """Count to `limit`, one bytecode loop after the other."""
    number = 0
    while number < limit:
        number += 1
    return number


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=8, help="for all processes (default: %(default)s)")
    parser.add_argument("--count", type=int, default=2500000, help="what each task counts to (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    pool = multiprocessing.get_context("fork").Pool(options.processes)
    counted = sum(pool.imap_unordered(count, [options.count] * options.tasks))
    pool.close()
    pool.join()
    seconds = time.perf_counter() - start
    print("fork_pool: %d processes counted to %d in all in %.2f s" % (options.processes, counted, seconds))


if __name__ == "__main__":
    main()

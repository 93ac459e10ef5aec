"""Two processes count to 10,000,000: each has a GIL of its own, so each gets a core and none waits.

What to look for: a group for the GIL of each process, both held at the same time by the main thread of theirs, on
different cores. Compare with `cpu_bound`: the same work, with one GIL. The parent only waits for its children and is
idle.

Truth: verdict = single-threaded
Truth: processes >= 3
Truth: wait_share <= 0.02
Truth: forced = 0
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


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--count", type=int, default=10000000, help="what each counts to (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    processes = [
        multiprocessing.Process(target=count, args=(options.count,), name="cpu-%d" % index)
        for index in range(options.processes)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    seconds = time.perf_counter() - start
    print("multiprocess: %d processes counted to %d in %.2f s" % (options.processes, options.count, seconds))


if __name__ == "__main__":
    main()

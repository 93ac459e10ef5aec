"""Two threads count to 10,000,000 in pure Python: one core's worth of work, however many cores there are.

Each thread holds the GIL until the other's switch request takes it away, 5 ms later, and waits in between.

What to look for: green holds and red waits alternate every 5 ms, and each arrow leads from a forced release to the
acquire of the other thread. The tracks of the cores show that the threads are seldom on a core at the same time.
Without a GIL the two would take half as long: that bound is in the report.

Truth: verdict = cpu-bound-contention
Truth: held_share >= 0.8
Truth: wait_share >= 0.2
Truth: forced(cpu-*) >= 10
Truth: off_running_cores <= 0.2
Truth: cores <= 1.3
"""

import argparse
import threading
import time


def count(limit):
    """Count to `limit`, one bytecode loop after the other."""
    number = 0
    while number < limit:
        number += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--count", type=int, default=10000000, help="what each thread counts to (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    threads = [
        threading.Thread(target=count, args=(options.count,), name="cpu-%d" % index) for index in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("cpu_bound: %d threads counted to %d in %.2f s" % (options.threads, options.count, seconds))


if __name__ == "__main__":
    main()

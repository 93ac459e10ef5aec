"""Four threads count, each step under one threading.Lock: they queue for the lock, and nobody waits for the GIL.

A thread that is blocked in a Lock has given the GIL up: it is off-GIL and asleep. So only the owner of the lock wants
the GIL, and always has it.

What to look for: the thread tracks are violet blocks, not red waits, though only one thread runs at any time. Each is
at the `with lock` line, and ends where the owner gives the lock back. The bound on what would change without a GIL is
1: it is the lock that lets only one run.

Truth: verdict = lock-bound
Truth: held_share >= 0.7
Truth: wait_share <= 0.3
Truth: blocked_share >= 0.25
Truth: lock_share(lock-*) >= 0.25
Truth: cause(lock-*) = lock
Truth: switch_requests <= 250
Truth: off_running_cores <= 0.2
"""

import argparse
import threading
import time

lock = threading.Lock()


def count(limit):
    """Count to `limit`, one bytecode loop after the other."""
    number = 0
    while number < limit:
        number += 1


def steps(number, limit):
    """Count `number` times to `limit`, each time as the only thread that does."""
    for _ in range(number):
        with lock:
            count(limit)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--steps", type=int, default=150, help="times that each thread counts (default: %(default)s)")
    parser.add_argument("--count", type=int, default=100000, help="what it counts to (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    threads = [
        threading.Thread(target=steps, args=(options.steps, options.count), name="lock-%d" % index)
        for index in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("lock_contention: %d threads counted under one lock in %.2f s" % (options.threads, seconds))


if __name__ == "__main__":
    main()

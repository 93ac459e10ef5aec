"""Four threads write to one slow device, each write under one lock: they wait for each other, not for the GIL.

A write takes 5 ms, asleep as if it asked a disk, and is done with the lock taken; what there is to write comes in 1 ms.
So four threads do hardly more than one.

What to look for: each thread has long violet blocks, `blocked: lock`, that end where another thread gives the lock
back. The owner is a gap meanwhile: it sleeps. The report names the line that sleeps with the lock taken.

Truth: verdict = lock-bound
Truth: held_share <= 0.3
Truth: wait_share <= 0.1
Truth: lock_share(writer-*) >= 0.5
Truth: blocks(writer-*) >= 80
Truth: woken_share(writer-*) >= 0.9
Truth: cause(writer-*) = lock
"""

import argparse
import threading
import time

lock = threading.Lock()


def write(seconds):
    """Take as long as a disk."""
    time.sleep(seconds)


def steps(number, seconds):
    """Write `number` times, each time as the only thread that does."""
    for _ in range(number):
        time.sleep(seconds / 5)
        with lock:
            write(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--steps", type=int, default=40, help="writes of each thread (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.005, help="that each write takes (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    threads = [
        threading.Thread(target=steps, args=(options.steps, options.seconds), name="writer-%d" % index)
        for index in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("lock_io: %d threads wrote %d times each in %.2f s" % (options.threads, options.steps, seconds))


if __name__ == "__main__":
    main()

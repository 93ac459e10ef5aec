"""Six threads go round one lock: each turn takes 0.1 ms, and whoever had one is the last in the queue for the next.

A step asks something for 0.1 ms with the lock taken, and something else for 0.1 ms without; both asleep. With so many
threads the lock is nearly always taken: they go to sleep for it, and are woken up, thousands of times per second.

What to look for: zoomed in, each thread's track is a row of short violet blocks, and each arrow leads from one thread
to the next: the lock goes round, thousands of times per second. With `--threads 1` there are none.

Truth: verdict = lock-bound
Truth: held_share <= 0.5
Truth: lock_share(step-*) >= 0.4
Truth: blocks(step-*) >= 500
Truth: woken_share(step-*) >= 0.9
Truth: median_block_ms(step-*) <= 5
Truth: cause(step-*) = lock
"""

import argparse
import threading
import time

lock = threading.Lock()


def ask(seconds):
    """Take as long as a cache on another machine."""
    time.sleep(seconds)


def steps(number, seconds):
    """Ask `number` times, and each time once more as the only thread that does."""
    for _ in range(number):
        ask(seconds)
        with lock:
            ask(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--steps", type=int, default=600, help="of each thread (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.0001, help="of each question (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    threads = [
        threading.Thread(target=steps, args=(options.steps, options.seconds), name="step-%d" % index)
        for index in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("lock_convoy: %d threads took %d short turns each in %.2f s" % (options.threads, options.steps, seconds))


if __name__ == "__main__":
    main()

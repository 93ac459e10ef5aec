"""Two threads sleep for 2 s, in short steps: both sleep at the same time, as a sleeping thread has no GIL.

The GIL is free nearly all the time, and changes hands without anybody waiting.

What to look for: the holder track of the GIL is nearly empty. Each thread has short holds, 100 ms apart, without a wait
before them. Four times as many threads would take no longer: try `--threads 8`.

Truth: verdict = io-bound-handoff
Truth: held_share <= 0.1
Truth: wait_share <= 0.05
Truth: forced(io-*) = 0
Truth: holds(io-*) >= 40
Truth: blocked_share >= 0.9
Truth: cores <= 0.3
"""

import argparse
import threading
import time


def sleep(seconds, steps):
    """Sleep for `seconds` in `steps` equal parts; the GIL is released around each."""
    for _ in range(steps):
        time.sleep(seconds / steps)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long each sleeps in all (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="in how many sleeps (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    threads = [
        threading.Thread(target=sleep, args=(options.seconds, options.steps), name="io-%d" % index)
        for index in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("io_bound: %d threads slept for %g s each in %.2f s" % (options.threads, options.seconds, seconds))


if __name__ == "__main__":
    main()

"""One thread with short I/O steps among two that count: after each 1 ms sleep it waits 5 ms and more for the GIL.

200 sleeps of 1 ms should take 0.2 s. They take 2 s and often far more: each ends in a wait of about a switch interval,
and then the GIL may go to the other thread that counts. `--threads 1` leaves only the interval. A wait is shorter where
the other thread had asked before it; on a busy machine, a sleep may end while the GIL is free for want of a core.

What to look for: on the track of `io-0` each gap of 1 ms is followed by a red wait of 5 ms or 10 ms, and each wait ends
with a switch request that takes the GIL from a thread that counts. The report's convoy finding names the line that
sleeps and estimates what a shorter switch interval would do; `switch_interval` tries that.

Truth: verdict = convoy
Truth: held_share >= 0.8
Truth: holds(io-*) >= 201
Truth: waits(io-*) >= 150
Truth: median_wait_ms(io-*) >= 2.5
Truth: wait_share(io-*) >= 0.6
Truth: forced(cpu-*) >= 100
"""

import argparse
import threading
import time

#: False once the I/O thread has done its steps. A plain name: asking an Event would add calls to what is shown.
running = True


def count():
    """Count until the I/O thread has done its steps."""
    number = 0
    while running:
        number += 1


def steps(number, seconds):
    """Sleep `number` times for `seconds`, then stop the counting."""
    global running
    for _ in range(number):
        time.sleep(seconds)
    running = False


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2, help="threads that count (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=200, help="sleeps of the I/O thread (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.001, help="length of each sleep (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    threads = [threading.Thread(target=count, name="cpu-%d" % index) for index in range(options.threads)]
    threads.append(threading.Thread(target=steps, args=(options.steps, options.seconds), name="io-0"))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("convoy: %d sleeps of %g s took %.2f s" % (options.steps, options.seconds, seconds))


if __name__ == "__main__":
    main()

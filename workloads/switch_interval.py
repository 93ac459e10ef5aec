"""One convoy, three times: with a switch interval of 5 ms, of 0.5 ms and of 50 us. Each wait shrinks with it.

A thread sleeps for 1 ms at a time beside one that counts. After each sleep it waits for the GIL for as long as
`sys.setswitchinterval` says, the default first.

What to look for: three I/O threads one after the other, the same number of green holds on each, with red waits of 5 ms,
of 0.5 ms, and hardly any to be seen. The price is in the track of the thread that counts: it is interrupted more often
in the same time. A convoy's finding in the report tells what a shorter interval would do: here it can be checked.

Truth: verdict = convoy
Truth: switch_interval_ms(io-5ms) = 5
Truth: switch_interval_ms(io-500us) = 0.5
Truth: switch_interval_ms(io-50us) <= 0.05
Truth: median_wait_ms(io-5ms) >= 2.5
Truth: median_wait_ms(io-500us) >= 0.25
Truth: low_wait_ms(io-500us) <= 1.5
Truth: low_wait_ms(io-50us) <= 0.4
"""

import argparse
import sys
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


def convoy(interval, number, seconds):
    """Run both threads under a switch interval; return in words how long that took."""
    global running
    running = True
    sys.setswitchinterval(interval)
    name = "io-%gms" % (interval * 1e3) if interval >= 1e-3 else "io-%gus" % (interval * 1e6)
    start = time.perf_counter()
    threads = [
        threading.Thread(target=count, name="cpu-0"),
        threading.Thread(target=steps, args=(number, seconds), name=name),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return "%.2f s at %g ms" % (time.perf_counter() - start, interval * 1e3)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--intervals", type=float, nargs="+", default=[0.005, 0.0005, 0.00005], help="in seconds")
    parser.add_argument("--steps", type=int, default=100, help="sleeps of each I/O thread (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.001, help="length of each sleep (default: %(default)s)")
    options = parser.parse_args()

    took = [convoy(interval, options.steps, options.seconds) for interval in options.intervals]
    print("switch_interval: %d sleeps of %g s took %s" % (options.steps, options.seconds, ", ".join(took)))


if __name__ == "__main__":
    main()

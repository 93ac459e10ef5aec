"""An asyncio event loop beside one thread that counts: every step of the loop waits for a switch interval first.

The loop wants to do something short every millisecond. It sleeps in `select` without the GIL, and must ask the counting
thread for it afterwards: 5 ms later it gets it.

What to look for: the event loop finding of the report names the culprit, the line that counts in thread `cpu-0`. On the
loop's track each gap is followed by a red wait of about 5 ms. asyncio's own debug mode shows nothing, because no
callback is slow: the loop is late before it begins.

Truth: verdict = convoy
Truth: held_share >= 0.7
Truth: waits(loop) >= 50
Truth: median_wait_ms(loop) >= 2.5
Truth: wait_share(loop) >= 0.5
Truth: forced(cpu-*) >= 50
"""

import argparse
import asyncio
import threading
import time

#: False once the loop has done its steps. A plain name: asking an Event would add calls to what is shown.
running = True


def count():
    """Count until the loop has done its steps."""
    number = 0
    while running:
        number += 1


async def ticks(number, seconds):
    """Sleep `number` times for `seconds`; return by how much the sleeps were late in all."""
    late = 0.0
    for _ in range(number):
        due = time.perf_counter() + seconds
        await asyncio.sleep(seconds)
        late += time.perf_counter() - due
    return late


def loop(number, seconds, late):
    """Run the event loop, then stop the counting."""
    global running
    late.append(asyncio.run(ticks(number, seconds)))
    running = False


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--ticks", type=int, default=150, help="steps of the loop (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.001, help="sleep of each (default: %(default)s)")
    options = parser.parse_args()

    late = []
    threads = [
        threading.Thread(target=count, name="cpu-0"),
        threading.Thread(target=loop, args=(options.ticks, options.seconds, late), name="loop"),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mean = late[0] / max(options.ticks, 1) * 1000
    print("asyncio_starved: %d sleeps of the loop were %.1f ms late on average" % (options.ticks, mean))


if __name__ == "__main__":
    main()

"""The main thread alone counts to 40,000,000: the GIL is held all the time and costs nobody anything.

What to look for: one long hold and no wait. That the GIL is held all the time is no problem where nobody else wants it.

Truth: verdict = single-threaded
Truth: held_share >= 0.9
Truth: wait_share <= 0.01
Truth: handoffs = 0
Truth: cores <= 1.2
"""

import argparse
import time


def count(limit):
    """Count to `limit`, one bytecode loop after the other."""
    number = 0
    while number < limit:
        number += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=40000000, help="what it counts to (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    count(options.count)
    print("single: counted to %d in %.2f s" % (options.count, time.perf_counter() - start))


if __name__ == "__main__":
    main()

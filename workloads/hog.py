"""One thread sorts a big list, again and again: C code that never gives up the GIL, however long others ask for it.

Its victims want the GIL for a moment after each 1 ms sleep. They ask for it 5 ms later, but the sort goes on: they get
it when the whole call has ended.

What to look for: a hold of `hog-0` goes on past one switch request after the other, and only its end lets the victim
in. The report's hog finding names the line that sorts, and the decomposition puts nearly all of the waited time down to
a holder in C past a switch request.

Truth: verdict = hog
Truth: held_share >= 0.8
Truth: longest_hold_ms(hog-*) >= 15
Truth: longest_wait_ms(victim-*) >= 15
Truth: wait_share(victim-*) >= 0.6
"""

import argparse
import random
import threading
import time

done = threading.Event()


def sort(data, rounds):
    """Sort a copy of `data` `rounds` times: each call is one long stretch of C."""
    for _ in range(rounds):
        sorted(data)
    done.set()


def tick(seconds):
    """Sleep for `seconds` at a time until the sorting is over."""
    while not done.is_set():
        time.sleep(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1, help="victims (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="sorts (default: %(default)s)")
    parser.add_argument("--items", type=int, default=400000, help="length of the list (default: %(default)s)")
    options = parser.parse_args()

    source = random.Random(1)
    data = [source.random() for _ in range(options.items)]
    start = time.perf_counter()
    threads = [threading.Thread(target=sort, args=(data, options.rounds), name="hog-0")]
    threads += [
        threading.Thread(target=tick, args=(0.001,), name="victim-%d" % index) for index in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("hog: sorted %d numbers %d times in %.2f s" % (options.items, options.rounds, seconds))


if __name__ == "__main__":
    main()

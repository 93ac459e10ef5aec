"""Eight threads wait for one condition, and each item wakes them all: one takes it, the others go back to sleep.

`notify_all` where `notify` would do: for each item seven threads come for nothing, one after the other, for they need
the condition's lock to look, and the GIL too.

What to look for: the threads' tracks are pale violet, `blocked: condition`, and at each item arrows go from `maker` to
all of them at once: a burst of short holds. With `--one` it wakes one thread an item, and the bursts are gone.

Truth: verdict = io-bound-handoff
Truth: held_share <= 0.5
Truth: lock_share(taker-*) >= 0.6
Truth: blocks(taker-*) >= 600
Truth: woken_share(taker-*) >= 0.9
Truth: cause(taker-*) = condition
"""

import argparse
import threading
import time
from collections import deque

there_are_items = threading.Condition()
items = deque()


def make(number, seconds, one):
    """Put `number` items, one each time that many `seconds` have passed, and an end for each that takes."""
    for item in range(number):
        time.sleep(seconds)
        with there_are_items:
            items.append(item)
            if one:
                there_are_items.notify()
            else:
                there_are_items.notify_all()


def take(taken):
    """Take items until there is a None, which is left for the others."""
    while True:
        with there_are_items:
            while not items:
                there_are_items.wait()
            if items[0] is None:
                return
            taken.append(items.popleft())


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=8, help="threads that wait (default: %(default)s)")
    parser.add_argument("--items", type=int, default=200, help="to put (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.003, help="from item to item (default: %(default)s)")
    parser.add_argument("--one", action="store_true", help="wake one thread for each item")
    options = parser.parse_args()

    start = time.perf_counter()
    taken = []
    threads = [threading.Thread(target=take, args=(taken,), name="taker-%d" % at) for at in range(options.threads)]
    maker = threading.Thread(target=make, args=(options.items, options.seconds, options.one), name="maker")
    for thread in threads:
        thread.start()
    maker.start()
    maker.join()
    with there_are_items:
        items.append(None)
        there_are_items.notify_all()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("condition_herd: %d threads took %d items in %.2f s" % (options.threads, len(taken), seconds))


if __name__ == "__main__":
    main()

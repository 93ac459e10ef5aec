"""One thread makes garbage with cycles beside a large heap and collects it: each collection keeps the GIL throughout.

A full collection visits every container that is alive. With many of them it takes tens of milliseconds, in C, whoever
asks for the GIL meanwhile; what it frees does not matter.

What to look for: hogs at the line that calls `gc.collect`. A collection that Python starts by itself looks the same,
but is blamed on whatever line happened to make one object too many. `gc.freeze()` after start-up takes the old heap out
of it: try `--freeze`.

Truth: verdict = hog
Truth: held_share >= 0.8
Truth: longest_hold_ms(gc-*) >= 15
Truth: longest_wait_ms(victim-*) >= 15
Truth: wait_share(victim-*) >= 0.5
"""

import argparse
import gc
import threading
import time

done = threading.Event()


def litter(rounds, cycles):
    """Make `cycles` lists that hold themselves and collect them, `rounds` times."""
    for _ in range(rounds):
        for _ in range(cycles):
            cycle = []
            cycle.append(cycle)
        gc.collect()
    done.set()


def tick(seconds):
    """Sleep for `seconds` at a time until the littering is over."""
    while not done.is_set():
        time.sleep(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=12, help="collections (default: %(default)s)")
    parser.add_argument("--heap", type=int, default=500000, help="containers that stay alive (default: %(default)s)")
    parser.add_argument("--cycles", type=int, default=5000, help="made for each collection (default: %(default)s)")
    parser.add_argument("--freeze", action="store_true", help="take what stays alive out of all collections")
    options = parser.parse_args()

    gc.disable()
    heap = [[index] for index in range(options.heap)]
    if options.freeze:
        gc.freeze()
    start = time.perf_counter()
    threads = [
        threading.Thread(target=litter, args=(options.rounds, options.cycles), name="gc-0"),
        threading.Thread(target=tick, args=(0.001,), name="victim-0"),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("gc_storm: %d collections beside %d lists in %.2f s" % (options.rounds, len(heap), seconds))


if __name__ == "__main__":
    main()

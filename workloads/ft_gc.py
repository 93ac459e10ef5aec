"""Without a GIL, collections of garbage stop the world: two threads count, and stand still for each of them.

A free-threaded build collects garbage with all other threads stopped, and the more objects there are, the longer that
takes. Here the main thread has a large heap, and collects every 20 ms.

What to look for: both threads have violet blocks at the same times, `blocked: stop-the-world`, as long as the main
thread collects. The verdict says which line asked for that, and what share of the time it cost.

Needs: Python 3.13t
Truth: verdict = stop-the-world
Truth: blocks(count-*) >= 10
Truth: lock_share(count-*) >= 0.1
Truth: woken_share(count-*) >= 0.9
Truth: cause(count-*) = stop-the-world
"""

import argparse
import gc
import sys
import threading
import time

done = threading.Event()


def count():
    """Count until the collections are over."""
    number = 0
    while not done.is_set():
        number += 1


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15, help="collections (default: %(default)s)")
    parser.add_argument("--heap", type=int, default=200000, help="objects that there are (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.02, help="between collections (default: %(default)s)")
    options = parser.parse_args()
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        parser.error("needs Python 3.13t, a build without a GIL")

    start = time.perf_counter()
    gc.disable()
    heap = [[index] for index in range(options.heap)]
    threads = [threading.Thread(target=count, name="count-%d" % index) for index in range(options.threads)]
    for thread in threads:
        thread.start()
    for _ in range(options.rounds):
        time.sleep(options.seconds)
        gc.collect()
    done.set()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("ft_gc: %d objects were looked at %d times in %.2f s" % (len(heap), options.rounds, seconds))


if __name__ == "__main__":
    main()

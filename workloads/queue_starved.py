"""Three workers wait for a queue that one thread fills too slowly: more workers would do nothing sooner.

The thread that makes items needs 10 ms for each, asleep as if it asked a server; a worker is done with one at once. So
the workers are blocked on the queue nearly all the time. No lock is to blame: what they wait for is not there yet.

What to look for: the workers' tracks are one pale violet block, `blocked: queue`, after the other, and each ends with
an arrow from the thread that makes items.

Truth: verdict = io-bound-handoff
Truth: held_share <= 0.3
Truth: wait_share(worker-*) <= 0.1
Truth: lock_share(worker-*) >= 0.8
Truth: woken_share(worker-*) >= 0.8
Truth: cause(worker-*) = queue
"""

import argparse
import queue
import threading
import time


def make(items, seconds, out, workers):
    """Make `items`, each of which takes so many `seconds`, then tell all `workers` that there are no more."""
    for item in range(items):
        time.sleep(seconds)
        out.put(item)
    for _ in range(workers):
        out.put(None)


def take(source, done):
    """Take what there is, which is soon done."""
    for item in iter(source.get, None):
        done.append(item)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--items", type=int, default=60, help="to make (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.01, help="that each takes (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    items, done = queue.Queue(), []
    threads = [
        threading.Thread(target=take, args=(items, done), name="worker-%d" % index) for index in range(options.workers)
    ]
    threads.append(
        threading.Thread(target=make, args=(options.items, options.seconds, items, options.workers), name="maker")
    )
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("queue_starved: %d workers were done with %d items in %.2f s" % (options.workers, len(done), seconds))


if __name__ == "__main__":
    main()

"""Three threads are stages of a pipeline, joined by queues: each stage computes in Python, so one works at a time.

Items pass from `make` over `square` to `add`. A pipeline of processes would keep three cores busy, this one keeps one.

What to look for: the GIL goes round between the stages and is nearly never free; a stage waits for it although there
are items in its queue. With short queues (`--queue 4`) the red waits nearly vanish and nothing gets faster: each stage
then runs until its queue is empty or full, and is blocked on the queue instead of waiting for the GIL.

Truth: verdict = cpu-bound-contention
Truth: held_share >= 0.7
Truth: wait_share(stage-*) >= 0.1
Truth: handoffs >= 40
Truth: forced(stage-*) >= 1
Truth: off_running_cores <= 0.3
"""

import argparse
import queue
import threading
import time


def make(items, size, out):
    """First stage: make lists of numbers."""
    for item in range(items):
        out.put([number + item for number in range(size)])
    out.put(None)


def square(source, out):
    """Second stage: square them."""
    for numbers in iter(source.get, None):
        out.put([number * number for number in numbers])
    out.put(None)


def add(source, sums):
    """Last stage: add them up, one by one."""
    for numbers in iter(source.get, None):
        total = 0
        for number in numbers:
            total += number
        sums.append(total)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--items", type=int, default=2000, help="lists to pass (default: %(default)s)")
    parser.add_argument("--queue", type=int, default=100, help="places in each queue (default: %(default)s)")
    parser.add_argument("--size", type=int, default=4000, help="numbers in each (default: %(default)s)")
    options = parser.parse_args()

    start = time.perf_counter()
    made, squared, sums = queue.Queue(options.queue), queue.Queue(options.queue), []
    threads = [
        threading.Thread(target=make, args=(options.items, options.size, made), name="stage-make"),
        threading.Thread(target=square, args=(made, squared), name="stage-square"),
        threading.Thread(target=add, args=(squared, sums), name="stage-add"),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("queue_pipeline: %d lists went through three stages in %.2f s" % (len(sums), seconds))


if __name__ == "__main__":
    main()

"""Four threads log to one handler whose stream is slow: each of them waits until the others have written.

A handler of `logging` writes with its lock taken. Here a write takes 2 ms, asleep as if it went to a terminal or over
the network; a thread that logs is as slow as all of them together.

What to look for: the blocks are `blocked: logging-lock`, and end where another thread's handler gives its lock back;
your own line is the one that logs. A `QueueHandler` would hand the records to a thread that writes.

Truth: verdict = lock-bound
Truth: held_share <= 0.3
Truth: wait_share <= 0.1
Truth: lock_share(request-*) >= 0.5
Truth: blocks(request-*) >= 40
Truth: woken_share(request-*) >= 0.9
Truth: cause(request-*) = logging-lock
"""

import argparse
import logging
import threading
import time

log = logging.getLogger("logging_lock")


class Slow:
    """A stream that takes its time."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.written = 0

    def write(self, text):
        """Count the text, slowly."""
        time.sleep(self.seconds)
        self.written += 1

    def flush(self):
        """Keep nothing back."""


def handle(number):
    """Handle `number` requests, of each of which a line is logged."""
    for request in range(number):
        log.warning("request %d is done", request)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--requests", type=int, default=60, help="of each thread (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.002, help="that a write takes (default: %(default)s)")
    options = parser.parse_args()

    stream = Slow(options.seconds)
    log.addHandler(logging.StreamHandler(stream))
    log.propagate = False
    start = time.perf_counter()
    threads = [
        threading.Thread(target=handle, args=(options.requests,), name="request-%d" % index)
        for index in range(options.threads)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    print("logging_lock: %d threads logged %d lines in %.2f s" % (options.threads, stream.written, seconds))


if __name__ == "__main__":
    main()

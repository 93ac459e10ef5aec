"""Threads that compute at two lines for a short while and then give the GIL up at a third, again and again.

Arguments: how many threads, how long a turn is in microseconds, and for how many seconds. The second line takes twice
the time of the first. Nothing else of a turn is a system call: where cores are short, a thread loses its core as it
comes back from one, with the GIL, and stands there for as long as others compute.
"""

import os
import sys
import threading
import time

count, turn_us, seconds = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
zero = os.open("/dev/zero", os.O_RDONLY)


def calibrate(steps):
    """How long a step of the loops below takes, in microseconds."""
    begin = time.thread_time()
    for _ in range(steps):
        pass
    return (time.thread_time() - begin) / steps * 1e6


unit = max(int(turn_us / 3 / min(calibrate(20000) for _ in range(10))), 1)
end = time.monotonic() + seconds


def compute():
    once, twice = range(unit), range(2 * unit)
    while time.monotonic() < end:
        for _ in once:  # FIRST
            pass
        for _ in twice:  # SECOND
            pass
        os.read(zero, 1)  # RELEASE


threads = [threading.Thread(target=compute, name="computes-%d" % i) for i in range(count)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

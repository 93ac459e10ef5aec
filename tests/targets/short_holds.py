"""Threads that compute at two lines for a short while and then give the GIL up at a third, again and again.

Arguments: how many threads, how long a turn is in microseconds, and for how many seconds. The second line takes twice
the time of the first. Prints as JSON the time that each line took while its thread had a core, in seconds: by the
thread's own clock, which stands still while others have the GIL as well as while others have the core.
"""

import json
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
spent = [[0.0, 0.0] for _ in range(count)]


def compute(mine):
    once, twice = range(unit), range(2 * unit)
    while time.monotonic() < end:
        first = time.thread_time()
        for _ in once:  # FIRST
            pass
        second = time.thread_time()
        for _ in twice:  # SECOND
            pass
        third = time.thread_time()
        mine[0] += second - first
        mine[1] += third - second
        os.read(zero, 1)  # RELEASE


threads = [threading.Thread(target=compute, args=(mine,), name="computes-%d" % i) for i, mine in enumerate(spent)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(json.dumps([sum(mine[line] for mine in spent) for line in (0, 1)]))

"""Threads that compute with the GIL or without; each prints the CPU time that the kernel counted for it at its end."""

import hashlib
import os
import sys
import threading
import time


def compute(limit):
    number = 0
    while number < limit:
        number += 1


def digest(rounds):
    data = bytes(4 << 20)
    for _ in range(rounds):
        hashlib.sha256(data).digest()


def measured(work, amount):
    """Do the work, then print tid and CPU time in ns; all at once, and as late in the thread's life as can be."""
    work(amount)
    line = "%d %d\n" % (threading.get_native_id(), time.clock_gettime_ns(time.CLOCK_THREAD_CPUTIME_ID))
    os.write(1, line.encode())


work = {"compute": compute, "digest": digest}[sys.argv[1]]
threads = [threading.Thread(target=measured, args=(work, int(amount))) for amount in sys.argv[2:]]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
measured(work, 0)

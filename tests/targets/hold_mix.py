"""Holds the GIL and gives it up by turns, for times that it measures itself: hold_mix.py HOLD_MS FREE_MS ROUNDS.

A second thread wants the GIL all along, from a known line. Prints: window start, window end, held ns in it (by its own
clock), the line of the hold, the line of the victim.
"""

import ctypes
import sys
import threading
import time

hold_us = int(float(sys.argv[1]) * 1000)
free_s = float(sys.argv[2]) / 1000
rounds = int(sys.argv[3])

#: PyDLL keeps the GIL during the call: this sleeps while it holds.
usleep = ctypes.PyDLL(None).usleep
lines = {}
result = {}
done = threading.Event()


def hold():
    lines["hold"] = sys._getframe().f_lineno + 1
    usleep(hold_us)


def holder():
    held = 0
    first = time.monotonic_ns()
    for _ in range(rounds):
        back = time.monotonic_ns()
        hold()
        held += time.monotonic_ns() - back
        time.sleep(free_s)
    result["window"] = (first, time.monotonic_ns(), held)
    done.set()


def victim():
    lines["victim"] = sys._getframe().f_lineno + 2
    while not done.is_set():
        time.sleep(0.0002)


threads = [threading.Thread(target=victim, name="victim"), threading.Thread(target=holder, name="holder")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(*result["window"], lines["hold"], lines["victim"])

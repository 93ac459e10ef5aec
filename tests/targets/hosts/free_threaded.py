"""Threads that count, and give the GIL up if there is one; meanwhile extensions are imported, and one needs a GIL.

Argument: the folder of that one, or nothing. Prints whether there is a GIL in the end.
"""

import importlib
import sys
import threading
import time
import warnings

sys.setswitchinterval(0.001)
warnings.simplefilter("ignore")
ended, turns = False, [0, 0, 0]


def work(number):
    while not ended:
        for _ in range(2000):
            pass
        time.sleep(0)
        turns[number] += 1


def all_go_on():
    """Come back when each thread has done something more."""
    before = list(turns)
    while any(now == then for now, then in zip(turns, before)):
        time.sleep(0.0001)


threads = [threading.Thread(target=work, args=(number,), name="works") for number in range(len(turns))]
for thread in threads:
    thread.start()
for name in ("_json", "_bisect", "_heapq", "_csv", "_struct", "_pickle", "_random", "array", "math"):
    importlib.import_module(name)
    all_go_on()
if len(sys.argv) > 1:
    sys.path.insert(0, sys.argv[1])
    importlib.import_module("needs_gil")
    for _ in range(20):
        all_go_on()
ended = True
for thread in threads:
    thread.join()
print(getattr(sys, "_is_gil_enabled", lambda: True)())

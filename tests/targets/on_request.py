"""Does what it is told on stdin, a word a line, and says "done" after each.

hold: keeps the GIL for 120 ms in C. busy: three threads use the GIL as fast as they can for 40,000 steps. end: ends.
"""

import ctypes
import sys
import threading
import time

keep_gil = ctypes.PyDLL(None).usleep


def steps():
    for _ in range(40000):
        time.sleep(0)


def busy():
    threads = [threading.Thread(target=steps, name="busy-%d" % number) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def hold():
    keep_gil(120000)


print("ready", flush=True)
for line in sys.stdin:
    if line.strip() == "end":
        break
    {"hold": hold, "busy": busy}[line.strip()]()
    print("done", flush=True)

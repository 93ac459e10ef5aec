"""Compiles functions all the time, lets them stand for a while, and frees them; says where it stood at each release.

Prints a line per release: CLOCK_MONOTONIC ns before and after, the function.
"""

import sys
import threading
import time

sys.setswitchinterval(1e-4)
log = []
ended = False


def spin():
    while not ended:
        pass


def made(number):
    source = "def made_%d():\n n = 0\n while n < 300: n += 1\n time.sleep(0)\n" % number
    # Of many sizes, so that one takes the memory that another of any name has left.
    source += " x = %r\n" % list(range(number % 37))
    names = {"time": time}
    exec(compile(source, "<made>", "exec"), names)
    function = names["made_%d" % number]
    before = time.monotonic_ns()
    function()
    log.append((before, time.monotonic_ns(), "made_%d" % number))


others = [threading.Thread(target=spin) for _ in range(2)]
for thread in others:
    thread.start()
for number in range(1500):
    made(number % 500)
ended = True
for thread in others:
    thread.join()
for row in log:
    print(*row)

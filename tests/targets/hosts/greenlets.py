"""Greenlets that begin at many depths of the stack, go on at others, and lose the GIL in between to another thread."""

import random
import sys
import threading

import greenlet

sys.setswitchinterval(0.0002)
ended = False
main = greenlet.getcurrent()
chosen = random.Random(1)


def spin():
    while not ended:
        pass


def count(n):
    for _ in range(n):
        pass
    return n


def through_c(depth, act):
    """Call `act` with `depth` frames of Python, and as many of C, below it."""
    return act() if depth == 0 else max(map(lambda _: through_c(depth - 1, act), [0]))


def body():
    while True:
        through_c(chosen.randrange(6), lambda: count(chosen.randrange(100, 20000)))
        main.switch()


spinner = threading.Thread(target=spin, name="spinner")
spinner.start()
alive = []
for _ in range(50):
    fresh = [greenlet.greenlet(body) for _ in range(40 - len(alive))]
    alive += fresh
    for one in chosen.sample(alive, len(alive)):
        # The first time it begins at this depth, and goes on from wherever the others left the stack.
        through_c(chosen.randrange(20 if one in fresh else 30), lambda one=one: one.switch() or 0)
    for one in alive[:5]:
        one.throw(greenlet.GreenletExit)
    del alive[:5]
ended = True
spinner.join()

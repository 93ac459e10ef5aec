"""Threads that wait for each other, in locks of the `threading` class that the first word names.

now       from the start: "payer" has one lock and wants the other, "booker" has that and wants the first
later     as now, once told to; a Lock that "payer" wants is given back for it when it is told "enough"
ring      as now, while the main thread lets the GIL go again and again from the first line on that it reads
alone     the main thread wants a lock that it has itself, a Lock
"""

import sys
import threading
import time

kind, when = getattr(threading, sys.argv[2]), sys.argv[1]
one, other, both = kind(), kind(), threading.Barrier(2)


def pay():
    with one:
        both.wait()
        other.acquire()  # payer waits
        other.release()


def book():
    with other:
        both.wait()
        with one:  # booker waits
            pass


def begin():
    for work, name in ((pay, "payer"), (book, "booker")):
        threading.Thread(target=work, name=name, daemon=True).start()


if when in ("now", "ring"):
    begin()
print("ready", flush=True)
if when == "alone":
    one.acquire()
    one.acquire()  # alone waits
for line in sys.stdin:
    if when == "later" and line == "begin\n":
        begin()
    if line == "enough\n":
        other.release()  # a Lock is anybody's to give back
    while when == "ring":
        time.sleep(0)

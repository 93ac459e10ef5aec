"""Starts and stops the tracer in itself again and again, while its main thread forks.

Arguments: the library, a folder for the recordings, how many children. Every child uses the GIL and looks whether that
changes a recording of its parent that has ended, and whether it can be traced itself: by the tracer that it was born
with, else by one of its own. Exits with the number of children that found something wrong, and prints what.
"""

import ctypes
import glob
import itertools
import mmap
import os
import sys
import threading
import time

library, folder, children = ctypes.CDLL(sys.argv[1]), sys.argv[2], int(sys.argv[3])
NS = ctypes.c_uint64
CONTROL = 3520  # of the head: see FORMAT.md
STATUS, STOPPED = 52, 8
TRACED_ALREADY = 1
RECENT = 20
running = True
latest = 0


def steps():
    while running:
        time.sleep(0.0002)


def attach(where):
    os.mkdir(where)
    result = ctypes.c_int(-1)
    library.giltrace_attach(where.encode(), 64, NS(0), NS(0), ctypes.byref(result), None)
    return result.value


def cycle():
    """By turns through the call and, as from outside, through the control word."""
    global latest
    for number in itertools.count():
        latest = number
        where = os.path.join(folder, str(number))
        assert attach(where) == 0
        time.sleep(0.002)
        if number % 2:
            library.giltrace_stop()
        else:
            name = os.path.join(where, "gil-%d-0.bin" % os.getpid())
            with open(name, "r+b") as file, mmap.mmap(file.fileno(), 4096) as head:
                head[CONTROL] = 1
                while not head[STATUS] & STOPPED:
                    time.sleep(0.0005)
        if not running:
            return


def ended(parent):
    """What the parent's recent recordings hold that have ended, by path."""
    found = {}
    for number in range(max(latest - RECENT, 0), latest + 1):
        path = os.path.join(folder, str(number), "gil-%d-0.bin" % parent)
        if not os.path.exists(path):
            continue
        with open(path, "rb") as file:
            content = file.read()
        if len(content) >= 4096 and content[STATUS] & STOPPED:
            found[path] = content
    return found


def child(parent):
    for _ in range(20):
        time.sleep(0.0002)
    before = ended(parent)
    for _ in range(20):
        time.sleep(0.0002)
    after = ended(parent)
    changed = [path for path in before if before[path] != after[path]]
    if changed:
        return "changes a recording of its parent that has ended: %s" % changed
    own = glob.glob(os.path.join(folder, "*", "gil-%d-*.bin" % os.getpid()))
    result = attach(os.path.join(folder, "child-%d" % os.getpid()))
    if own and result == TRACED_ALREADY:
        return ""
    return "cannot be traced: %d" % result if result else ""


# A first recording looks the interpreter up in the loader, whose lock glibc does not free in a child.
assert attach(os.path.join(folder, "first")) == 0
library.giltrace_stop()
threads = [threading.Thread(target=steps) for _ in range(3)] + [threading.Thread(target=cycle)]
for thread in threads:
    thread.start()
wrong = 0
for _ in range(children):
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        problem = child(parent)
        os.write(1, problem.encode())
        os._exit(bool(problem))
    wrong += os.waitpid(pid, 0)[1] != 0
running = False
for thread in threads:
    thread.join()
sys.exit(wrong)

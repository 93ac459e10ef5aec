"""Starts and stops the tracer in itself again and again, from a thread without the GIL, while others use the GIL.

Arguments: the library, a folder for the recordings, how many, and how to stop: "call" or "control". Prints as JSON how
many mappings, descriptors and threads there are after the second and after the last cycle.
"""

import ctypes
import json
import mmap
import os
import sys
import threading
import time

library, folder, cycles, way = ctypes.CDLL(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
NS = ctypes.c_uint64
CONTROL = 3520  # of the head: see FORMAT.md
STATUS, STOPPED = 52, 8
running = True


def spin():
    number = 0
    while running:
        number += 1


def steps():
    while running:
        time.sleep(0.0003)


def compiling():
    while running:
        eval(compile("sum(range(9))", "made", "eval"))


def brief():
    while running:
        thread = threading.Thread(target=time.sleep, args=(0,))
        thread.start()
        thread.join()


def counts():
    with open("/proc/self/maps") as maps:
        lines = maps.read().splitlines()
    ours = sum("gil-" in line or "libgiltrace" in line for line in lines)
    return [ours, len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))]


def stop(where):
    if way == "call":
        library.giltrace_stop()
        return
    name = os.path.join(where, "gil-%d-0.bin" % os.getpid())
    with open(name, "r+b") as file, mmap.mmap(file.fileno(), 4096) as head:
        head[CONTROL] = 1
        while not head[STATUS] & STOPPED:
            time.sleep(0.0005)


others = [threading.Thread(target=kind) for kind in (spin, spin, steps, steps, compiling, brief)]
for thread in others:
    thread.start()
seen = []
for number in range(cycles):
    where = os.path.join(folder, str(number))
    os.mkdir(where)
    result = ctypes.c_int(-1)
    ring = 1 << 20 if number % 2 else 0
    library.giltrace_attach(where.encode(), 128, NS(0), NS(ring), ctypes.byref(result), None)
    assert result.value == 0, result.value
    again = ctypes.c_int(-1)
    library.giltrace_attach(where.encode(), 128, NS(0), NS(0), ctypes.byref(again), None)
    assert again.value == 1, again.value
    time.sleep(0.004)
    stop(where)
    if number in (1, cycles - 1):
        seen.append(counts())
running = False
for thread in others:
    thread.join()
print(json.dumps(seen))

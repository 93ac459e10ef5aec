"""Many threads that use the GIL all the time and count, beside a series of short recordings.

Arguments: the library, a folder for the recordings, how many threads, how many recordings, and how long each is in ms.
For each recording it prints as JSON how often each thread came back for the GIL in it at least, by its id, and how many
mappings the process has after it; of files of a recording in the last place.
"""

import ctypes
import json
import os
import sys
import threading
import time

library, folder, threads, recordings = ctypes.CDLL(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
pause = int(sys.argv[5]) / 1000
NONE = ctypes.c_uint64(0)
counts = [0] * threads
tids = [0] * threads
running = True
started = threading.Barrier(threads + 1)


def count(number):
    zero = os.open("/dev/zero", os.O_RDONLY)
    tids[number] = threading.get_native_id()
    started.wait()
    while running:
        os.read(zero, 1)
        counts[number] += 1


def mappings():
    with open("/proc/self/maps") as maps:
        lines = maps.read().splitlines()
    files = [line for line in lines if "/gil-" in line or "/stacks-" in line]
    return len(lines), len(files)


others = [threading.Thread(target=count, args=(number,)) for number in range(threads)]
for thread in others:
    thread.start()
started.wait()
for number in range(recordings):
    where = os.path.join(folder, str(number))
    os.mkdir(where)
    result = ctypes.c_int(-1)
    library.giltrace_attach(where.encode(), 128, NONE, NONE, ctypes.byref(result), None)
    assert result.value == 0, result.value
    before = list(counts)
    time.sleep(pause)
    after = list(counts)
    library.giltrace_stop()
    # Its first turn may have begun before the recording did.
    seen = {tids[number]: after[number] - before[number] - 1 for number in range(threads)}
    print(json.dumps([seen, *mappings()]), flush=True)
running = False
for thread in others:
    thread.join()

"""Threads that use the GIL all the time while somebody cuts off, or takes away, the files of their recording.

Arguments: the recording's folder, what happens ("truncate" or "remove"), to which files (a pattern), and the size that
is left of them. Prints "unharmed" at the end.
"""

import glob
import os
import shutil
import sys
import threading

folder, what, pattern, size = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
zero = os.open("/dev/zero", os.O_RDONLY)
turns = [0] * 3
running = True


def use(times):
    for _ in range(times):
        os.read(zero, 1)


def spin(number):
    while running:
        os.read(zero, 1)
        turns[number] += 1


def until_all_have_gone_on():
    seen = list(turns)
    while any(turns[number] < seen[number] + 3000 for number in range(len(turns))):
        use(10)


threads = [threading.Thread(target=spin, args=(number,)) for number in range(len(turns))]
for thread in threads:
    thread.start()
until_all_have_gone_on()
if what == "remove":
    while os.path.exists(folder):  # to which a file may be added meanwhile
        shutil.rmtree(folder, ignore_errors=True)
else:
    for path in glob.glob(os.path.join(folder, pattern)):
        os.truncate(path, size)
until_all_have_gone_on()
late = threading.Thread(target=use, args=(1000,), name="late")
late.start()
late.join()
running = False
for thread in threads:
    thread.join()
print("unharmed")

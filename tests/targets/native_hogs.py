"""Three threads, one after the other, keep the GIL in C code that is known, while a victim wants it.

`sleeping` is in libc's usleep, `matching` in the regular expression engine, `summing` in the interpreter itself.
"""

import ctypes
import re
import threading
import time

#: PyDLL keeps the GIL during the call: this sleeps while it holds.
usleep = ctypes.PyDLL(None).usleep
done = threading.Event()


def sleeping():
    for _ in range(10):
        usleep(60000)


def matching():
    for _ in range(4):
        re.match("(a+)+$", "a" * 21 + "b")


def summing():
    for _ in range(4):
        sum(range(4000000))


def victim():
    while not done.is_set():
        time.sleep(0.001)


threading.Thread(target=victim, name="victim").start()
for hog in (sleeping, matching, summing):
    thread = threading.Thread(target=hog, name=hog.__name__)
    thread.start()
    thread.join()
done.set()

"""Has a thread that stays in the loader, at the place named by the first word, until a line comes.

"constructor", "destructor" or "walk"; the library's path comes second. The line "release" lets it go on, which it
says ("outside"); all others are answered.
"""

import ctypes
import os
import sys
import threading

place, path = sys.argv[1], sys.argv[2].encode()
reading, writing = os.pipe()
libc = ctypes.CDLL(None)
libc.dlopen.restype = ctypes.c_void_p
VARIABLE = {"constructor": b"SLOW_LOADER", "destructor": b"SLOW_END", "walk": b"SLOW_WALK"}[place]


def stay():
    # Without the GIL, as all of ctypes but PyDLL.
    if place != "constructor":
        loaded = libc.dlopen(path, 2)
    libc.setenv(VARIABLE, str(reading).encode(), 1)
    if place == "constructor":
        assert libc.dlopen(path, 2)
    elif place == "destructor":
        libc.dlclose(ctypes.c_void_p(loaded))
    else:
        ctypes.CDLL(path.decode()).walk()
    print("outside", flush=True)


thread = threading.Thread(target=stay, name="loading")
thread.start()
print("ready", flush=True)
for line in sys.stdin:
    if line == "release\n":
        os.write(writing, b"x")
        thread.join()
    else:
        print(line.strip(), flush=True)

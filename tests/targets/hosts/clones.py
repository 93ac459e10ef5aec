"""Children made by the clone system call alone, so that nobody is told: each uses the GIL, and is waited for.

The argument says who makes them: "main", "thread" (beside others that wait), "child" (of such a child), "fork" (the
child forks). Prints the process ids of all that used the GIL, and how often.
"""

import ctypes
import os
import platform
import signal
import sys
import threading
import time

CLONE, FUTEX = {"x86_64": (56, 202), "aarch64": (220, 98)}[platform.machine()]
used = 0
zero = os.open("/dev/zero", os.O_RDONLY)
keeps_the_gil = ctypes.PyDLL(None)


def use():
    global used
    for _ in range(1500):
        os.read(zero, 1)
        used += 1


def clone():
    return keeps_the_gil.syscall(CLONE, signal.SIGCHLD, 0, 0, 0, 0)


def tell():
    os.write(1, ("%d %d\n" % (os.getpid(), used)).encode())


def in_child(further):
    global used
    used = 0
    use()
    if further is not None:
        make(further, None)
    tell()
    os._exit(0)


def make(how, further):
    child = how()
    if child == 0:
        in_child(further)
    use()
    assert os.waitpid(child, 0)[1] == 0


def waits_for_good(tid):
    """Whether it sleeps in a futex without a time limit: not for the GIL, whose locks the child would be left with."""
    with open("/proc/self/task/%s/syscall" % tid) as file:
        words = file.read().split()
    return words[0] == str(FUTEX) and words[4] == "0x0"


def several():
    others = set(os.listdir("/proc/self/task")) - {str(threading.get_native_id())}
    while not all(map(waits_for_good, others)):
        time.sleep(0.001)
    for _ in range(3):
        make(clone, None)


use()
if sys.argv[1] == "thread":
    gate = threading.Event()
    others = [threading.Thread(target=gate.wait) for _ in range(3)]
    for thread in others:
        thread.start()
    maker = threading.Thread(target=several)
    maker.start()
    maker.join()
    gate.set()
    for thread in others:
        thread.join()
else:
    make(clone, {"main": None, "child": clone, "fork": os.fork}[sys.argv[1]])
tell()

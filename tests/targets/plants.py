"""What stalls a server, each in a function whose line is to be blamed; a thread helps where it takes two."""

import ctypes
import gc
import importlib
import os
import sys
import tempfile
import threading
import time

LONG = float(os.environ.get("STALL_SECONDS", "0.4"))
keep_gil = ctypes.PyDLL(None).usleep
lock = threading.Lock()
go, taken = threading.Event(), threading.Event()
task = []

modules = tempfile.mkdtemp()
sys.path.insert(0, modules)
gc.disable()
cycles = [[[]] for _ in range(300000)]
gc.enable()


def ends():
    return time.monotonic() + LONG


def block():
    time.sleep(LONG)


def compute():
    end = ends()
    while time.monotonic() < end:
        sum(range(1000))


def collect():
    end = ends()
    while time.monotonic() < end:
        gc.collect()


def bring_in():
    name = "slow_%d" % len(os.listdir(modules))
    with open(os.path.join(modules, name + ".py"), "w") as file:
        file.write(
            "import time\nend = time.monotonic() + %f\nwhile time.monotonic() < end:\n    sum(range(1000))\n" % LONG
        )
    importlib.invalidate_caches()
    __import__(name)


def helped(what):
    """Have the other thread begin something."""
    taken.clear()
    task.append(what)
    go.set()
    taken.wait()


def wait_for_lock():
    helped("keep_lock")
    with lock:
        pass


def wait_for_hog():
    helped("keep_gil")
    while task:  # it is not yet at it where it had no core meanwhile
        time.sleep(0)


def wait_for_turns():
    helped("spin")
    while task:
        os.getpgid(0)
        time.sleep(0)


def hog():
    keep_gil(int(LONG * 1e6))


def keep_lock():
    with lock:
        taken.set()
        time.sleep(LONG)


def spin():
    end = ends()
    while time.monotonic() < end:
        pass


def help_out():
    while True:
        go.wait()
        go.clear()
        what = task[0]
        if what == "keep_lock":
            keep_lock()
        else:
            taken.set()
            hog() if what == "keep_gil" else spin()
        task.clear()


PLANTS = {
    "call": block,
    "computing": compute,
    "collection": collect,
    "import": bring_in,
    "lock": wait_for_lock,
    "hog": wait_for_hog,
    "turns": wait_for_turns,
    "nothing": lambda: None,
}


def start():
    threading.Thread(target=help_out, name="helper", daemon=True).start()

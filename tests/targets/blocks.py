"""Threads that block on each other as told, and say so: who, in which order, by which lines.

Says "ready", reads a line, lets them block, prints what it knows as a line of JSON, and ends with the next line. With
the words "trace" and a folder it traces itself into that meanwhile.

Each entry is one block: the thread `waiter` began at `begin` to ask for what it was to sleep for, slept at `before`,
when the `waker` began to end that, and was back at `end`; the waker was done at `after`. Times are those of
time.monotonic_ns(). The lines of both are marked by comments, "NAME: waits" and "NAME: wakes". `ended` is how: woken,
timed-out or interrupted.
"""

import concurrent.futures
import importlib.abc
import importlib.machinery
import json
import logging
import os
import queue
import signal
import sys
import threading
import time

now = time.monotonic_ns
me = threading.get_native_id
entries = []


def look(tid):
    """What says that a thread sleeps, and has not run in between: its state, and how often it left a core."""
    with open("/proc/self/task/%d/status" % tid) as file:
        lines = dict(line.split(":", 1) for line in file)
    return [lines["State"].split()[0], lines["voluntary_ctxt_switches"], lines["nonvoluntary_ctxt_switches"]]


def asleep(entry):
    """Wait until the waiter of an entry sleeps for good: not for the GIL, which is free meanwhile."""
    while "waiter" not in entry:
        time.sleep(0.001)
    before = None
    while True:
        seen = look(entry["waiter"])
        if seen == before and seen[0] == "S":
            return
        before = seen
        time.sleep(0.005)


def begin(name, **more):
    entry = dict(more, name=name, ended=more.get("ended", "woken"))
    entries.append(entry)
    return entry


def waiting(entry, wait):
    def body():
        entry["begin"] = now()
        entry["waiter"] = me()
        wait()
        entry["end"] = now()

    thread = threading.Thread(target=body)
    thread.start()
    asleep(entry)
    return thread


def waking(entry, wake):
    entry["waker"] = me()
    entry["before"] = now()
    wake()
    entry["after"] = now()


def pair(name, wait, wake):
    """One thread waits, this one wakes it."""
    entry = begin(name)
    thread = waiting(entry, wait)
    waking(entry, wake)
    thread.join()


def lock():
    lock = threading.Lock()
    lock.acquire()
    pair(
        "lock",
        lambda: lock.acquire(),  # lock: waits
        lambda: lock.release(),  # lock: wakes
    )


def rlock():
    lock = threading.RLock()
    lock.acquire()
    pair(
        "rlock",
        lambda: lock.acquire(),  # rlock: waits
        lambda: lock.release(),  # rlock: wakes
    )


def condition():
    condition = threading.Condition()

    def wait():
        with condition:
            condition.wait()  # condition: waits

    def wake():
        with condition:
            condition.notify()  # condition: wakes

    pair("condition", wait, wake)


def event():
    event = threading.Event()
    pair(
        "event",
        lambda: event.wait(),  # event: waits
        lambda: event.set(),  # event: wakes
    )


def queues():
    many = queue.Queue(1)
    pair(
        "queue",
        lambda: many.get(),  # queue: waits
        lambda: many.put(1),  # queue: wakes
    )
    many.put(1)
    pair(
        "full-queue",
        lambda: many.put(2),  # full-queue: waits
        lambda: many.get(),  # full-queue: wakes
    )
    simple = queue.SimpleQueue()
    pair(
        "simple-queue",
        lambda: simple.get(),  # simple-queue: waits
        lambda: simple.put(1),  # simple-queue: wakes
    )


def semaphore():
    semaphore = threading.Semaphore(0)
    those = [begin("semaphore") for _ in range(3)]
    threads = [
        waiting(
            entry,
            lambda: semaphore.acquire(),  # semaphore: waits
        )
        for entry in those
    ]
    for entry, thread in zip(those, threads):
        waking(
            entry,
            lambda: semaphore.release(),  # semaphore: wakes
        )
        thread.join()


def barrier():
    barrier = threading.Barrier(3)
    those = [begin("barrier") for _ in range(2)]
    threads = [
        waiting(
            entry,
            lambda: barrier.wait(),  # barrier: waits
        )
        for entry in those
    ]
    waking(
        those[0],
        lambda: barrier.wait(),  # barrier: wakes
    )
    those[1].update({key: those[0][key] for key in ("waker", "before", "after")})
    for thread in threads:
        thread.join()


def future():
    future = concurrent.futures.Future()
    pair(
        "future",
        lambda: future.result(),  # future: waits
        lambda: future.set_result(1),  # future: wakes
    )


def handler():
    handler = logging.FileHandler(os.devnull)
    logger = logging.getLogger("blocks")
    logger.propagate = False
    logger.addHandler(handler)
    handler.acquire()
    pair(
        "logging",
        lambda: logger.warning("told"),  # logging: waits
        lambda: handler.release(),  # logging: wakes
    )
    logger.removeHandler(handler)


def several():
    """Who wakes whom of several that wait for one lock shows only in the end."""
    lock = threading.Lock()
    lock.acquire()
    those = [begin("several") for _ in range(3)]

    def wait(entry):
        lock.acquire()  # several: waits
        entry["end"] = now()
        entry["gave"] = [me(), now()]
        lock.release()  # several: wakes
        entry["gave"].append(now())

    threads = [waiting(entry, lambda entry=entry: wait(entry)) for entry in those]
    gave = [me(), now()]
    lock.release()  # several: wakes
    gave.append(now())
    for thread in threads:
        thread.join()
    for entry in sorted(those, key=lambda entry: entry["gave"][1]):
        entry["waker"], entry["before"], entry["after"] = gave
        gave = entry.pop("gave")


def chain():
    """One that waits has a lock that another waits for."""
    first, second, never = threading.Lock(), threading.Lock(), threading.Event()
    second.acquire()

    def hold():
        with first:
            for _ in range(10):
                never.wait(0.0001)
            second.acquire()  # chain: waits
            one["end"] = now()

    one, other = begin("chain"), begin("chained")
    holder = waiting(one, hold)
    waiter = waiting(
        other,
        lambda: first.acquire(),  # chained: waits
    )
    other["waker"], other["before"] = one["waiter"], now()
    waking(
        one,
        lambda: second.release(),  # chain: wakes
    )
    holder.join()
    waiter.join()
    other["after"] = other["end"]


def join():
    gate = threading.Lock()
    gate.acquire()
    entry = begin("join")

    def live():
        entry["waker"] = me()
        gate.acquire()

    ending = threading.Thread(target=live)
    ending.start()
    thread = waiting(
        entry,
        lambda: ending.join(),  # join: waits
    )
    entry["before"] = now()
    gate.release()
    thread.join()
    entry["after"] = entry["end"]


class Slow(importlib.abc.Loader, importlib.abc.MetaPathFinder):
    """Finds a module that takes its time."""

    def __init__(self):
        self.gate, self.there = threading.Lock(), threading.Event()
        self.gate.acquire()

    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "slow_to_import" else None

    def exec_module(self, module):
        self.there.set()
        self.gate.acquire()


def imports():
    slow = Slow()
    sys.meta_path.insert(0, slow)
    entry = begin("import")

    def load():
        entry["waker"] = me()
        __import__("slow_to_import")  # import: wakes

    first = threading.Thread(target=load)
    first.start()
    slow.there.wait()
    thread = waiting(
        entry,
        lambda: __import__("slow_to_import"),  # import: waits
    )
    entry["before"] = now()
    slow.gate.release()
    thread.join()
    first.join()
    entry["after"] = entry["end"]
    sys.meta_path.remove(slow)


def timed_out():
    lock = threading.Lock()
    lock.acquire()
    entry = begin("timed", ended="timed-out")
    entry["begin"], entry["waiter"] = now(), me()
    lock.acquire(timeout=0.02)  # timed: waits
    entry["end"] = now()
    lock.acquire(timeout=0)
    lock.acquire(False)


def interrupted():
    """A signal comes while the main thread waits; then it goes on waiting."""
    lock = threading.Lock()
    lock.acquire()
    main, told = threading.get_ident(), []
    entry, after = begin("signal", ended="interrupted"), begin("signal")
    signal.signal(signal.SIGUSR1, lambda *_: told.append(now()))

    def interrupt():
        asleep(entry)
        entry["before"] = now()
        signal.pthread_kill(main, signal.SIGUSR1)
        while not told:
            time.sleep(0.001)
        asleep(entry)
        waking(
            after,
            lambda: lock.release(),  # signal: wakes
        )

    thread = threading.Thread(target=interrupt)
    thread.start()
    entry["begin"] = after["begin"] = now()
    entry["waiter"] = after["waiter"] = me()
    lock.acquire()  # signal: waits
    after["end"] = now()
    entry["end"] = told[0]
    thread.join()


ALL = (
    *(lock, rlock, condition, event, queues, semaphore, barrier, future),
    *(handler, several, chain, join, imports, timed_out, interrupted),
)


def run():
    for each in ALL:
        each()


print("ready", flush=True)
sys.stdin.readline()
if sys.argv[1:2] == ["trace"]:
    import giltrace

    with giltrace.trace(sys.argv[2]):
        run()
else:
    run()
print(json.dumps(entries), flush=True)
sys.stdin.readline()

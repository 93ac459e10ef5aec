"""Starts and stops the tracer in itself again and again, while threads sleep in locks, wake each other, and end, and
signals interrupt them.

Arguments: the library, a folder for the recordings, how many, and "fork" if its main thread is to fork meanwhile. Exits
with the number of children that did not come through: each uses locks of its own, and one that its parent's threads
slept in.
"""

import contextlib
import ctypes
import os
import queue
import signal
import sys
import threading
import time

library, folder, cycles = ctypes.CDLL(sys.argv[1]), sys.argv[2], int(sys.argv[3])
NS = ctypes.c_uint64
running = True
baton, again = threading.Lock(), threading.RLock()
turn = threading.Condition()
handed, simple = queue.Queue(1), queue.SimpleQueue()


def contend():
    while running:
        for lock in (baton, again):
            with lock:
                time.sleep(0)


def impatient():
    while running:
        for timeout in (0.0001, 0, 1e-9, 0.002):
            if baton.acquire(timeout=timeout):
                baton.release()


def take_turns():
    while running:
        with turn:
            turn.notify()
            turn.wait(0.001)


def give():
    number = 0
    while running:
        with contextlib.suppress(queue.Full):
            handed.put(number, timeout=0.001)
            simple.put(number)
            number += 1


def take():
    while running:
        for each in (handed, simple):
            with contextlib.suppress(queue.Empty):
                each.get(timeout=0.001)


def hold_and_end(lock, there):
    lock.acquire()
    there.set()


def brief():
    """Locks that are gone when they are released, and threads that end with one."""
    while running:
        locks = [threading.Lock() for _ in range(50)]
        for lock in locks:
            lock.acquire()
            waiting = threading.Thread(target=lock.acquire)
            waiting.start()
            lock.release()
            waiting.join()
            if not running:
                break
        there = threading.Event()
        threading.Thread(target=hold_and_end, args=(locks[-1], there), daemon=True).start()
        if locks[-1].locked():
            locks[-1].release()
        there.wait()


def cycle():
    for number in range(cycles):
        where = os.path.join(folder, str(number))
        os.mkdir(where)
        result = ctypes.c_int(-1)
        ring = 1 << 18 if number % 2 else 0
        library.giltrace_attach(where.encode(), 128, NS(0), NS(ring), ctypes.byref(result), None)
        assert result.value == 0, result.value
        time.sleep(0.01)
        library.giltrace_stop()


def child():
    """Has locks in any state, and its own."""
    lock, met = threading.Lock(), threading.Condition()
    lock.acquire()

    def wake():
        lock.release()
        with met:
            met.notify_all()

    threads = [threading.Thread(target=wake)]
    with met:
        threads[0].start()
        met.wait()
    lock.acquire()
    baton.acquire(timeout=0.001)
    threads[0].join()
    os._exit(0)


def interrupt():
    while running:
        signal.pthread_kill(main, signal.SIGUSR1)
        time.sleep(0.0005)


main = threading.get_ident()
signal.signal(signal.SIGUSR1, lambda *_: None)
cycling = threading.Thread(target=cycle)
works = (contend, contend, impatient, take_turns, take_turns, give, take, brief, interrupt)
others = [threading.Thread(target=work) for work in works]
for thread in (cycling, *others):
    thread.start()
wrong = 0
while cycling.is_alive():
    if sys.argv[4:] == ["fork"]:
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            child()
        wrong += os.waitpid(pid, 0)[1] != 0
    with baton:
        time.sleep(0.0005)
    cycling.join(0.002)
running = False
for thread in others:
    thread.join()
sys.exit(wrong)

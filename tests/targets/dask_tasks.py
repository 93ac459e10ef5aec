"""Tasks for a Dask worker: one keeps the GIL until another, whose short steps each wait for it, is through."""

import threading
import time

STARTED, THROUGH = threading.Event(), threading.Event()
LOCK = threading.Lock()


def hog(begun):
    """Compute until `convoy` on the same worker is through."""
    STARTED.set()
    total = 0
    while not THROUGH._flag:  # without a call that lets the GIL go
        for i in range(1000):
            total += i * i
    return begun


async def begun():
    """Wait until `hog` computes; on the worker's own loop, which must not be blocked for it."""
    import asyncio

    while not STARTED.is_set():
        await asyncio.sleep(0.01)


def convoy(steps):
    """Give the GIL up and take it again so many times, while `hog` computes."""
    STARTED.wait()
    for _ in range(steps):
        time.sleep(0.0001)
    THROUGH.set()
    return steps


def again():
    """Both may run another time."""
    STARTED.clear()
    THROUGH.clear()


def keeps(seconds):
    """Keep the lock while it sleeps."""
    with LOCK:
        STARTED.set()
        while not THROUGH.is_set():
            time.sleep(seconds)


def blocked():
    """Be blocked in the lock until `keeps` gives it back."""
    STARTED.wait()
    threading.Timer(0.05, THROUGH.set).start()
    with LOCK:
        return True


def brief(number):
    """Be there."""
    return sum(range(number % 7 + 1000))


async def waits(number):
    """A task that is a coroutine."""
    import asyncio

    await asyncio.sleep(0.01)
    return number

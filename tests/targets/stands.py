"""Releases the GIL in every kind of frame, and says before and after each where it stands.

Prints a line per release: the thread, CLOCK_MONOTONIC ns before and after, the line, the function.
"""

import asyncio
import os
import sys
import threading
import time

#: Lines to print at the end: printing would release the GIL itself.
log = []
zero = os.open("/dev/zero", os.O_RDONLY)


def note(before, after, line, function):
    log.append((threading.get_native_id(), before, after, line, function))


def plain():
    frame = sys._getframe()
    before = time.monotonic_ns()
    os.read(zero, 1)
    line = frame.f_lineno - 1
    note(before, time.monotonic_ns(), line, "plain")


def across_lines():
    before = time.monotonic_ns()
    # fmt: off
    time.sleep(
        0.0001 *
        1
    )
    # fmt: on
    note(before, time.monotonic_ns(), sys._getframe().f_lineno - 5, "across_lines")


def generator():
    for _ in range(3):
        before = time.monotonic_ns()
        os.read(zero, 1)
        note(before, time.monotonic_ns(), sys._getframe().f_lineno - 1, "generator")
        yield


async def coroutine():
    before = time.monotonic_ns()
    time.sleep(0.0001)
    note(before, time.monotonic_ns(), sys._getframe().f_lineno - 1, "coroutine")
    await asyncio.sleep(0)


def callback(value):
    before = time.monotonic_ns()
    os.read(zero, 1)
    note(before, time.monotonic_ns(), sys._getframe().f_lineno - 1, "callback")
    return value


def executed(number):
    """Code objects that come and go at the same addresses, with lines of their own."""
    source = "\n" * number + "before = clock(); read(zero, 1); after = clock()"
    names = {"clock": time.monotonic_ns, "read": os.read, "zero": zero}
    exec(compile(source, "<made-%d>" % number, "exec"), names)
    note(names["before"], names["after"], number + 1, "<module>")


def recursive(depth):
    if depth:
        return recursive(depth - 1)
    before = time.monotonic_ns()
    os.read(zero, 1)
    note(before, time.monotonic_ns(), sys._getframe().f_lineno - 1, "recursive")
    return None


def main():
    for _ in range(50):
        plain()
        across_lines()
        for _ in generator():
            pass
        sorted([2, 1], key=callback)
        recursive(20)
    for number in range(200):
        executed(number % 7 * 100)
    recursive(300)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(coroutine())
    loop.close()
    for _ in range(20):
        thread = threading.Thread(target=plain)
        thread.start()
        thread.join()
    for row in log:
        print(*row)


main()

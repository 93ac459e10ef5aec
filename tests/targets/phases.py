"""Two threads in turn in `spin` and in `rest`, until standard input ends; logs when each was in `rest` to argv[1]."""

import os
import select
import sys
import threading
import time

log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)


def spin():
    begin = time.monotonic_ns()
    while time.monotonic_ns() - begin < 10_000_000:
        pass


def rest():
    return bool(select.select([0], [], [], 0.015)[0])


def work():
    ended = False
    while not ended:
        spin()
        begin = time.monotonic_ns()
        ended = rest()
        os.write(log, b"%d %d %d\n" % (threading.get_native_id(), begin, time.monotonic_ns()))


thread = threading.Thread(target=work)
thread.start()
work()
thread.join()

"""Makes new stacks before, while and after it has no descriptor left, each with much to write.

Prints CLOCK_MONOTONIC ns of the beginning of each of the three, and of the end.
"""

import os
import resource
import time


def new_stacks(kind, count):
    for number in range(count):
        exec(compile("time.sleep(0)", "%s-%d-%s" % (kind, number, "x" * 3000), "exec"))


resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
times = [time.monotonic_ns()]
new_stacks("before", 10)
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
times.append(time.monotonic_ns())
new_stacks("while", 150)
for fd in taken:
    os.close(fd)
time.sleep(0.3)  # whoever was refused does not ask again at once
times.append(time.monotonic_ns())
new_stacks("after", 10)
times.append(time.monotonic_ns())
print(*times)

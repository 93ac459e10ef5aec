"""Threads that compute, sleep, import, fork and compile; says what came of it, and whether there is a GIL.

An argument names a module to import when the threads are at work.
"""

import importlib
import os
import sys
import threading
import time

results = []
lock = threading.Lock()
halfway = threading.Barrier(4)


def work(number):
    total = 0
    for step in range(300):
        total += len(eval(compile("[%d] * %d" % (step, number), "made", "eval")))
        if step % 100 == 0:
            time.sleep(0.0005)
        if step == 150:
            halfway.wait()
            halfway.wait()
    with lock:
        results.append(total)


threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
for thread in threads:
    thread.start()
halfway.wait()
for module in sys.argv[1:]:
    importlib.import_module(module)
child = os.fork()
if child == 0:
    time.sleep(0)
    os._exit(len(results))
assert os.waitpid(child, 0)[1] == 0
halfway.wait()
for thread in threads:
    thread.join()
print(sorted(results), sys._is_gil_enabled())

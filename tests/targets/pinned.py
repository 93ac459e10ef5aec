"""Keeps itself to one core, says "ready" once both of its threads have worked there, and ends with its input."""

import os
import sys
import threading


def work():
    for _ in range(200_000):
        pass


os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
workers = [threading.Thread(target=work) for _ in range(2)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
print("ready", flush=True)
sys.stdin.readline()

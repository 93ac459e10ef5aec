"""Threads that wait for work, each in its own way: none of them waits for another one's lock."""

import concurrent.futures
import queue
import sys
import threading
import time

items, simple, event, condition = queue.Queue(), queue.SimpleQueue(), threading.Event(), threading.Condition()
semaphore, future = threading.Semaphore(0), concurrent.futures.Future()
pool = concurrent.futures.ThreadPoolExecutor(2)
list(pool.map(time.sleep, [0.01, 0.01]))


def wait_for_condition():
    with condition:
        condition.wait()


def get():
    simple.get()


waits = [items.get, items.get, event.wait, semaphore.acquire, wait_for_condition, future.result, get, get]
for wait in waits:
    threading.Thread(target=wait, daemon=True).start()
print("ready", flush=True)
print(len(waits), flush=True)
sys.stdin.read()

"""Three threads take one lock in turn, each for the time of a sleep, until a line comes in."""

import sys
import threading
import time

lock = threading.Lock()
stop = threading.Event()


def work():
    while not stop.is_set():
        with lock:
            time.sleep(0.002)


threads = [threading.Thread(target=work, name=f"worker-{i}") for i in range(3)]
for thread in threads:
    thread.start()
print("ready", flush=True)
sys.stdin.readline()
stop.set()
for thread in threads:
    thread.join()
print("go on", flush=True)

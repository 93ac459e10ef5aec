"""Two threads that count while the main one waits for a line on stdin, then ends them.

Says "ready" once both have run.
"""

import sys
import threading

stop = threading.Event()
running = [threading.Event(), threading.Event()]


def count(number):
    while not stop.is_set():
        sum(range(500))
        running[number].set()


threads = [threading.Thread(target=count, args=(number,), name="count-%d" % number) for number in range(2)]
for thread in threads:
    thread.start()
for event in running:
    event.wait()
print("ready", flush=True)
sys.stdin.readline()
stop.set()
for thread in threads:
    thread.join()

"""A thousand threads that live for a moment, at most a few at a time."""

import threading


def work() -> None:
    sum(range(200))


for first in range(0, 1000, 10):
    batch = [threading.Thread(target=work, name=f"brief-{first + i}") for i in range(10)]
    for thread in batch:
        thread.start()
    for thread in batch:
        thread.join()

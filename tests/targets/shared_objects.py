"""Four threads change one dict and one object of a class of this program's, without a lock of their own."""

import threading


class Counter:
    def __init__(self):
        self.total = 0


shared, counter = {}, Counter()
begin = threading.Barrier(4)


def change():
    begin.wait()
    for number in range(30_000):
        shared[number % 50] = shared.get(number % 50, 0) + 1
        counter.total = number


threads = [threading.Thread(target=change, name=f"changer-{i}") for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

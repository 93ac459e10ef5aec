"""Four threads change one dict and one object of a class of this program's, without a lock of their own.

Looking a key up takes long, so the dict is locked most of the time: there is always one who waits for it.
"""

import threading


class Counter:
    def __init__(self):
        self.total = 0


class Key:
    def __hash__(self):
        return 1

    def __eq__(self, other):
        return sum(range(10_000)) > 0


shared, counter = {Key(): 0}, Counter()
begin = threading.Barrier(4)


def change():
    key = Key()
    begin.wait()
    for number in range(300):
        shared[key] = number
        for total in range(50):
            counter.total = total


threads = [threading.Thread(target=change, name=f"changer-{i}") for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()

"""numpy: threads in its own loops, and in Python's."""

import threading

import numpy as np


def work(seed, results):
    rng = np.random.default_rng(seed)
    total = 0.0
    for _ in range(200):
        matrix = rng.random((200, 200))
        total += float((matrix @ matrix).sum()) + sum(i % 7 for i in range(5000))
    results[seed] = round(total, 3)


results = {}
threads = [threading.Thread(target=work, args=(seed, results)) for seed in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(sorted(results.items()))

"""Ray: tasks and an actor, in processes that its C++ programs start."""

import logging

import ray


@ray.remote
def work(limit):
    return sum(i * i for i in range(limit))


@ray.remote
class Sum:
    def __init__(self):
        self.total = 0

    def add(self, number):
        self.total += number
        return self.total


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.ERROR, log_to_driver=False)
    total = Sum.remote()
    for one in ray.get([work.remote(limit) for limit in range(200000, 200160)]):
        total.add.remote(one)
    print(ray.get(total.add.remote(0)))
    ray.shutdown()

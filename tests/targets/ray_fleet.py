"""Record a Ray cluster of this machine in one way or another, and print what became of it as JSON."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import ray

import giltrace

NAME = Path(sys.argv[2])
STEPS = 60


@ray.remote(max_concurrency=3)
class Planted:
    """One method keeps the GIL until another, whose short steps each wait for it, is through."""

    def __init__(self):
        self.started, self.through = threading.Event(), threading.Event()

    def hog(self):
        """Compute until `convoy` is through."""
        self.started.set()
        total = 0
        while not self.through._flag:  # without a call that lets the GIL go
            for i in range(1000):
                total += i * i
        self.started.clear()
        return os.getpid()

    def convoy(self):
        """Give the GIL up and take it again so many times, while `hog` computes."""
        self.started.wait()
        for _ in range(STEPS):
            time.sleep(0.0001)
        self.through.set()
        return os.getpid()

    def steps(self):
        """Come to more than one result."""
        yield 1
        yield 2


@ray.remote(num_cpus=0)
class Awaits:
    """Its methods are coroutines."""

    async def waits(self):
        """Wait for a moment."""
        import asyncio

        await asyncio.sleep(0.01)
        return os.getpid()


@ray.remote(num_cpus=0)
def crowded():
    """A task that has short steps, beside a thread of its own that keeps the GIL."""
    through, started = threading.Event(), threading.Event()

    def spin():
        started.set()
        while not through._flag:
            for _ in range(1000):
                pass

    thread = threading.Thread(target=spin, name="spin")
    thread.start()
    started.wait()
    for _ in range(STEPS):
        time.sleep(0.0001)
    through.set()
    thread.join()
    return os.getpid()


@ray.remote
class Brief:
    """An actor that does little."""

    def brief(self, number):
        """Be there."""
        return sum(range(number % 7 + 1000))

    def pid(self):
        """Which process it is."""
        return os.getpid()


def noted(pid, keys):
    """Wait until a worker's log on the disk has so many tasks."""
    folder = Path(ray._private.worker._global_node.get_session_dir_path()) / "giltrace"
    while True:
        for about in folder.glob("ray-*/about.json"):
            log = about.with_name("tasks.jsonl")
            if json.loads(about.read_text())["pid"] == pid and log.read_text().count('"end"') >= keys:
                return
        time.sleep(0.01)


def planted():
    actors = [Planted.options(num_cpus=0).remote() for _ in range(2)]
    awaits = Awaits.remote()
    ray.get(awaits.waits.remote())
    for actor in actors:
        ray.get(actor.__ray_ready__.remote())
    with giltrace.ray.record(name=NAME):
        asked = [method.remote() for actor in actors for method in (actor.hog, actor.convoy)]
        pids = ray.get(asked)
        asked = awaits.waits.remote()
        ray.get(asked)
        steps = [ray.get(one) for one in actors[0].steps.options(num_returns="streaming").remote()]
    return {"pids": sorted(set(pids)), "steps": steps, "task": asked.task_id().hex()}


def crowd():
    """In a worker that is started while it records."""
    with giltrace.ray.record(name=NAME):
        return {"pid": ray.get(crowded.remote())}


def killed():
    actors = [Brief.options(num_cpus=0).remote() for _ in range(2)]
    pids = ray.get([actor.pid.remote() for actor in actors])
    with giltrace.ray.record(name=NAME):
        ray.get([actor.brief.remote(one) for actor in actors for one in range(20)])
        for pid in pids:
            noted(pid, 20)
        os.kill(pids[0], signal.SIGKILL)
        with contextlib.suppress(ray.exceptions.RayError):
            ray.get(actors[0].brief.remote(1))
        ray.get([actors[1].brief.remote(one) for one in range(20)])
    return {"victim": pids[0], "pids": pids}


def before():
    """A method that runs as recording begins and ends."""
    actor = Planted.options(num_cpus=0).remote()
    hog = actor.hog.remote()
    while not ray.get(actor.__ray_call__.remote(lambda self: self.started.is_set())):
        time.sleep(0.01)
    giltrace.ray.record(0.2, NAME)
    ray.get(actor.convoy.remote())
    ray.get(hog)
    return {"task": hog.task_id().hex()}


def twice():
    actor = Brief.remote()
    ray.get(actor.pid.remote())
    found = {}
    with giltrace.ray.record(name=NAME):
        try:
            giltrace.ray.record(0, NAME.with_name("other"))
        except giltrace.GiltraceError as error:
            found["refused"] = str(error)
        ray.get(actor.brief.remote(1))
    found["left"] = NAME.with_name("other.giltrace").exists()
    return found


def unprepared():
    actor = Brief.remote()
    ray.get(actor.pid.remote())
    try:
        giltrace.ray.record(0, NAME)
    except giltrace.GiltraceError as error:
        return {"refused": str(error)}
    return {}


if __name__ == "__main__":
    env = {} if sys.argv[1] == "unprepared" else giltrace.ray.prepared()
    ray.init(address="local", num_cpus=2, include_dashboard=False, runtime_env=env)
    result = globals()[sys.argv[1]]()
    folder = Path(ray._private.worker._global_node.get_session_dir_path()) / "giltrace"
    result["left_behind"] = [path.name for path in folder.glob("*") if path.suffix != ".sock"]
    ray.shutdown()
    print(json.dumps(result))

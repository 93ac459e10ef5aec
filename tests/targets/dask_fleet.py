"""Record a Dask cluster of this machine in one way or another, and print what became of it as JSON."""

import json
import os
import signal
import sys
import time
from pathlib import Path

import dask
import dask_tasks as tasks
from distributed import Client, LocalCluster, get_task_stream, wait

import giltrace

NAME = Path(sys.argv[2])
WORKERS = 2


def cluster():
    return LocalCluster(n_workers=WORKERS, threads_per_worker=2, dashboard_address=":0", host="127.0.0.1")


def plant(client, steps=60):
    """A convoy on every worker, until it is through: it waits for the GIL, and not for the hog to begin."""
    client.run(tasks.again)
    on = [{"workers": [address], "pure": False} for address in client.nthreads()]
    found = [client.submit(tasks.hog, number, **where) for number, where in enumerate(on)]
    client.run(tasks.begun)
    found += [client.submit(tasks.convoy, steps, **where) for where in on]
    client.gather(found)


def planted(client):
    with get_task_stream(client, plot=False) as stream, giltrace.dask.record(client, name=NAME):
        plant(client)
        client.gather(client.map(tasks.waits, range(4), pure=False))
    told = [
        [one["worker"], str(one["key"]), one["thread"], part["start"], part["stop"]]
        for one in stream.data
        for part in one["startstops"]
        if part["action"] == "compute"
    ]
    delays = client.run(lambda dask_worker: dask_worker.scheduler_delay)
    restored = client.run(lambda dask_worker: type(dask_worker.active_threads).__name__)
    plugins = client.run(lambda dask_worker: list(dask_worker.plugins))
    return {"stream": told, "delays": delays, "restored": restored, "plugins": plugins}


def locks(client):
    with giltrace.dask.record(client, name=NAME):
        for address in client.nthreads():
            client.run(tasks.again, workers=[address])
            on = {"workers": [address], "pure": False}
            client.gather([client.submit(tasks.keeps, 0.001, **on), client.submit(tasks.blocked, **on)])
    return {}


def noted(place, keys):
    """Wait until a worker's log on the disk has so many tasks."""
    while sum(log.read_text().count('"end"') for log in place.glob("giltrace-dask-*/tasks.jsonl")) < keys:
        time.sleep(0.01)


def killed(client):
    pids = client.run(os.getpid)
    victim = sorted(pids)[0]
    with giltrace.dask.record(client, name=NAME):
        for address in pids:
            client.gather(client.map(tasks.brief, range(20), workers=[address], pure=False))
        noted(Path(dask.config.get("temporary-directory")), 40)
        os.kill(pids[victim], signal.SIGKILL)
        while victim in client.nthreads() or len(client.nthreads()) < WORKERS:
            time.sleep(0.01)
        fresh = [address for address in client.nthreads() if address not in pids]
        # Its plugin is set up before it is given work.
        client.gather(client.map(tasks.brief, range(20), workers=fresh, pure=False))
    return {"victim": pids[victim], "pids": list(pids.values()), "after": list(client.run(os.getpid).values())}


def twice(client):
    found = {}
    with giltrace.dask.record(client, name=NAME):
        try:
            giltrace.dask.record(client, 0, name=NAME.with_name("other"))
        except giltrace.GiltraceError as error:
            found["refused"] = str(error)
        wait(client.map(tasks.brief, range(4), pure=False))
    found["left"] = NAME.with_name("other.giltrace").exists()
    return found


def blames(client):
    plant_into = giltrace.dask.record(client, name=NAME)
    with plant_into as recording:
        plant(client, steps=20)
    written = giltrace.dask.export(client, recording.path, NAME.with_name("tables"))
    frame = giltrace.dask.blame(client, f"{NAME.with_name('tables')}/*.parquet")
    lines = giltrace.dask.blame(client, written, by=["culprit_own_line"])
    return {"rows": frame.values.tolist(), "columns": list(frame.columns), "lines": lines.values.tolist()}


if __name__ == "__main__":
    dask.config.set({"temporary-directory": os.environ["DASK_TEMPORARY_DIRECTORY"]})
    with cluster() as made, Client(made) as client:
        result = globals()[sys.argv[1]](client)
    result["left_behind"] = [path.name for path in Path(os.environ["DASK_TEMPORARY_DIRECTORY"]).glob("giltrace-dask-*")]
    print(json.dumps(result))

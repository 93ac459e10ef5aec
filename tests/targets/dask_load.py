"""Give each worker of a cluster a convoy, again and again; a file says that all work."""

import sys
from pathlib import Path

import dask_tasks as tasks
from distributed import Client

if __name__ == "__main__":
    client = Client(sys.argv[1])
    client.wait_for_workers(int(sys.argv[2]))
    while True:
        client.run(tasks.again)
        found = []
        for address in client.nthreads():
            on = {"workers": [address], "pure": False}
            found += [client.submit(tasks.hog, len(found), **on), client.submit(tasks.convoy, 60, **on)]
        client.gather(found)
        Path(sys.argv[3]).touch()

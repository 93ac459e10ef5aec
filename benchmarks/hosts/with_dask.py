"""Dask: a cluster of two worker processes with two threads each."""

from dask.distributed import Client, LocalCluster


def work(limit):
    return sum(i * i for i in range(limit))


if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster, Client(cluster) as client:
        print(sum(client.gather(client.map(work, range(200000, 200160)))))

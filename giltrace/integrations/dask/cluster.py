"""A Dask cluster as its client reaches it: through the scheduler."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dask.utils import key_split
from distributed import Client

from giltrace.errors import TargetError, UsageError
from giltrace.integrations.dask import worker
from giltrace.integrations.fleet.cluster import Begin, Cluster

#: A scheduler answers sooner, or not.
_REACH_SECONDS = 5


def connect(scheduler: str) -> Any:
    """A client of a scheduler, by its address or the file that it wrote; raises `TargetError` if it does not answer."""
    named = {"address": scheduler}
    if scheduler.endswith(".json"):
        named = {"scheduler_file": scheduler}
        if not Path(scheduler).is_file():
            raise UsageError(f"there is no file {scheduler}", "name the scheduler's --scheduler-file, or its address")
    try:
        return Client(**named, timeout=_REACH_SECONDS, name="giltrace", set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        raise TargetError(
            f"no scheduler at {scheduler}: {str(error) or type(error).__name__}",
            "name what `dask scheduler` says at its start, like tcp://HOST:8786, or client.scheduler.address",
        ) from None


class DaskCluster(Cluster):
    """The workers of a client's cluster."""

    name = "dask"
    ground = worker.GROUND

    def __init__(self, client: Any) -> None:
        if client.asynchronous:
            raise UsageError(
                "this client is asynchronous", "make another: distributed.Client(client.scheduler.address)"
            )
        super().__init__()
        self._client = client

    @property
    def address(self) -> str:
        """The scheduler's."""
        return str(self._client.scheduler.address)

    def begin(self, given: Begin) -> None:
        """Send a plugin to all workers; those that join get it from the scheduler."""
        plugin = worker.Recorder(*given)
        self._client.register_plugin(plugin, name=plugin.name)

    def leave(self, token: str) -> None:
        """Take the plugin away."""
        self._client.unregister_worker_plugin(worker.name_of(token))

    def no_workers(self) -> tuple[str, str] | None:
        """They are started by hand."""
        return "the cluster has no workers", "start some: dask worker SCHEDULER-ADDRESS"

    @staticmethod
    def prefix_of(key: str) -> str:
        """What Dask's dashboard calls a task's kind."""
        return str(key_split(key))

    def _listed(self) -> list[str]:
        return list(self._client.nthreads())

    def _call(self, function: Callable[..., Any], address: str, *arguments: Any) -> Any:
        answer = self._client.run(function, *arguments, workers=[address], on_error="return")[address]
        if isinstance(answer, Exception):
            raise answer
        return answer

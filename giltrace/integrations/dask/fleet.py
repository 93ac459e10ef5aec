"""Record all workers of a Dask cluster at once, and make one recording of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, overload

import giltrace
from giltrace.integrations.dask.cluster import DaskCluster
from giltrace.integrations.fleet.tracing import FleetTracing, recorded


@overload
def record(
    client: Any, seconds: float, name: str | Path | None = None, *, stacks: int = ..., force: bool = ...
) -> giltrace.Recording: ...


@overload
def record(
    client: Any, seconds: None = None, name: str | Path | None = None, *, stacks: int = ..., force: bool = ...
) -> FleetTracing: ...


def record(
    client: Any,
    seconds: float | None = None,
    name: str | Path | None = None,
    *,
    stacks: int = 128,
    force: bool = False,
) -> giltrace.Recording | FleetTracing:
    """Record all workers of a Dask cluster at once, for some `seconds` or while a block runs::

        recording = giltrace.dask.record(client, 10)
        with giltrace.dask.record(client, name="slow") as recording:
            df.groupby("key").mean().compute()
        print(recording.report())

    What comes back is one `Recording`, `name` with ".giltrace" (default: the first free of dask, dask.2, ...), of all
    workers that were there or joined meanwhile, on the clock of this machine; `giltrace report`, `view` and the others
    read it. A worker that ends meanwhile costs its own part only, and that only from then on if another process on its
    machine can read what it left. All that is missing is told by the report.

    Raises `UsageError` for a client that is asynchronous, `TargetError` if no worker can be recorded, and `OutputError`
    if the recording cannot be written.
    """
    tracing = FleetTracing(DaskCluster(client), None if name is None else Path(name), stacks=stacks, force=force)
    return recorded(tracing, seconds)

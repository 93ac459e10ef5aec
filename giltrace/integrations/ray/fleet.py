"""Record all workers of a Ray cluster at once, and make one recording of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, overload

import giltrace
from giltrace.errors import UsageError
from giltrace.integrations.fleet.tracing import FleetTracing, recorded
from giltrace.integrations.ray.cluster import RayCluster
from giltrace.integrations.ray.worker import HOOK

_KEY = "worker_process_setup_hook"


def prepared(runtime_env: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A `runtime_env` whose workers can be recorded, with all that the given one has::

        ray.init(runtime_env=giltrace.ray.prepared())

    Raises `UsageError` if that has a `worker_process_setup_hook` of its own.
    """
    env = dict(runtime_env or {})
    if env.get(_KEY, HOOK) != HOOK:
        raise UsageError(f"this runtime_env has a {_KEY} already", f"call {HOOK}() there")
    return {**env, _KEY: HOOK}


@overload
def record(
    seconds: float, name: str | Path | None = None, *, stacks: int = ..., force: bool = ...
) -> giltrace.Recording: ...


@overload
def record(
    seconds: None = None, name: str | Path | None = None, *, stacks: int = ..., force: bool = ...
) -> FleetTracing: ...


def record(
    seconds: float | None = None, name: str | Path | None = None, *, stacks: int = 128, force: bool = False
) -> giltrace.Recording | FleetTracing:
    """Record all workers of this driver's Ray cluster at once, for some `seconds` or while a block runs::

        ray.init(runtime_env=giltrace.ray.prepared())
        recording = giltrace.ray.record(10)
        with giltrace.ray.record(name="slow") as recording:
            ray.get([work.remote(one) for one in range(100)])
        print(recording.report())

    Workers of all jobs are recorded that were `prepared`, also those that are started meanwhile. What comes back is one
    `Recording`, `name` with ".giltrace" (default: the first free of ray, ray.2, ...), on the clock of this machine. A
    worker that ends meanwhile costs its own part only, and that only from then on, if its node is still there. All that
    is missing is told by the report.

    Raises `UsageError` if there was no `ray.init`, `TargetError` if no worker can be recorded, and `OutputError` if the
    recording cannot be written.
    """
    tracing = FleetTracing(RayCluster(), None if name is None else Path(name), stacks=stacks, force=force)
    return recorded(tracing, seconds)

"""A Ray cluster as its driver reaches it: by an actor on each node."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from giltrace.errors import TargetError, UsageError
from giltrace.integrations.fleet.cluster import ANSWER_SECONDS, Begin, Cluster
from giltrace.integrations.ray import worker
from giltrace.integrations.ray.agent import GiltraceAgent
from giltrace.text import plural

_PREPARE = "start Ray's job with ray.init(runtime_env=giltrace.ray.prepared())"
#: So many may ask one agent at once.
_CONCURRENCY = 32


class RayCluster(Cluster):
    """The workers of the cluster that this driver is connected to."""

    name = "ray"
    ground = worker.GROUND

    def __init__(self) -> None:
        if not ray.is_initialized():
            raise UsageError("this process is connected to no Ray cluster", "call ray.init() first")
        super().__init__()
        self._agents: dict[str, Any] = {}
        self._given: Begin | None = None

    def close(self) -> None:
        """Ask no more, and take the agents away."""
        super().close()
        for agent in self._agents.values():
            with suppress(RayError):
                ray.kill(agent)

    @property
    def address(self) -> str:
        """Where the cluster's head is."""
        return str(ray.get_runtime_context().gcs_address)

    def begin(self, given: Begin) -> None:
        """Let all workers begin; those that are started meanwhile find what to begin with on their node."""
        self._given = given
        self._all("begin", tuple(given))

    def leave(self, token: str) -> None:
        """Let no more workers begin."""
        self._given = None
        self._all("leave", token)

    def no_workers(self) -> tuple[str, str] | None:
        """They are started as tasks need them; those that are there may not have been prepared."""
        told = self._unprepared()
        return (f"{told}, and there are no others", _PREPARE) if told else None

    def left_out(self) -> list[str]:
        """Those that were not prepared."""
        told = self._unprepared()
        return [f"{told}: {_PREPARE}"] if told else []

    def readers(self, workers: list[str]) -> list[str]:
        """The agents."""
        return [f"{node}:0" for node in self._agents]

    def at(self, address: str) -> str:
        """The agent of its node."""
        return f"{address.partition(':')[0]}:0"

    @staticmethod
    def prefix_of(key: str) -> str:
        """The function, or the class and its method."""
        return key.rpartition("-")[0]

    def _unprepared(self) -> str:
        """How many were not prepared, in words; empty if all were."""
        busy = sum(self._all("unprepared").values())
        return f"{plural(busy, 'worker')} of Ray cannot be recorded, not having been prepared for it" if busy else ""

    def _listed(self) -> list[str]:
        alive = {worker.name_of_node(node["NodeID"]): node["NodeID"] for node in ray.nodes() if node["Alive"]}
        for name in alive.keys() - self._agents.keys():
            self._agents[name] = self._agent_on(name, alive[name])
        for name in self._agents.keys() - alive.keys():
            del self._agents[name]
        return [address for each in self._all("workers").values() for address in each]

    def _agent_on(self, name: str, node_id: str) -> Any:
        on_node = NodeAffinitySchedulingStrategy(node_id=node_id, soft=False)
        made: Any = ray.remote(GiltraceAgent)
        agent = made.options(num_cpus=0, max_concurrency=_CONCURRENCY, scheduling_strategy=on_node).remote()
        try:
            ray.get(agent.workers.remote(), timeout=ANSWER_SECONDS)
            if self._given is not None:
                ray.get(agent.begin.remote(tuple(self._given)), timeout=ANSWER_SECONDS)
        except RayError as error:
            # The last line of what Ray tells is what was raised there.
            last = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise TargetError(
                f"nothing can be recorded on node {name}: {last}",
                "install giltrace and ray, the same versions as here, on all nodes",
            ) from None
        return agent

    def _all(self, method: str, *arguments: Any) -> dict[str, Any]:
        """What all agents answer; who does not is not there."""
        asked = {node: getattr(agent, method).remote(*arguments) for node, agent in self._agents.items()}
        found = {}
        for node, answer in asked.items():
            with suppress(RayError):
                found[node] = ray.get(answer, timeout=ANSWER_SECONDS)
        return found

    def _call(self, function: Callable[..., Any], address: str, *arguments: Any) -> Any:
        node, _, pid = address.partition(":")
        try:
            well, answer = ray.get(self._agents[node].run.remote(int(pid), function, arguments), timeout=ANSWER_SECONDS)
        except GetTimeoutError:
            raise TimeoutError("it did not answer") from None
        if not well:
            raise RuntimeError(answer)
        return answer

"""What the analyses find of a scheduler's tasks and of a fleet's workers; see `analysis.results`."""

from __future__ import annotations

from dataclasses import dataclass

from giltrace.analysis.site import Site

#: What tasks lost time to, where that is no lock: the cause of a `TaskBlame`.
GIL = "gil"


@dataclass(frozen=True)
class TaskPrefix:
    """The tasks of one kind, the `prefix` of their keys; empty for what a worker's threads did beside tasks.

    They took `ns` of their threads' time; in that they held the GIL for `held_ns`, waited for it for `waited_ns`, in
    `waits` waits, `wait_max_ns` in one of them, and slept in locks for `blocked_ns`. Other threads waited `cost_ns` for
    the GIL while they held it. The task `worst` waited longest for the GIL, `worst_ns`; empty if none waited.
    """

    prefix: str
    tasks: int
    ns: int
    held_ns: int
    waited_ns: int
    waits: int
    wait_max_ns: int
    blocked_ns: int
    cost_ns: int
    worst: str = ""
    worst_ns: int = 0


@dataclass(frozen=True)
class TaskBlame:
    """Tasks of a kind at the line `victim` lost `ns`, `count` times, `max_ns` at once, to tasks of another or the same.

    By the `cause` "gil" they waited while `culprit_prefix` held the GIL at the line `culprit`; by another
    (`BlockCause`) they slept in a lock until that line woke them up, None if nobody is known to have. An empty prefix
    is what threads did beside tasks. Sites have no thread. `processes` says in how many processes that was.
    """

    prefix: str
    victim: Site
    cause: str
    culprit_prefix: str
    culprit: Site | None
    ns: int
    count: int
    max_ns: int
    processes: int = 1


@dataclass(frozen=True)
class WorkerReport:
    """One worker of a fleet: what the cluster calls it, its `address`, its `host`, its process here and there.

    `clock_offset_ns` was added to its times, which are wrong by `clock_error_ns` at most against those of other hosts.
    Its `tasks` took `task_ns` of its threads' time, in which they waited for the GIL for `waited_ns` and slept in
    locks for `blocked_ns`; beside tasks its threads waited for `own_waited_ns`. Its GIL was held for `held_ns` of the
    `duration_ns` that are on record.
    """

    worker: str
    address: str
    host: str
    pid: int
    own_pid: int
    clock_offset_ns: int
    clock_error_ns: int
    duration_ns: int
    tasks: int
    task_ns: int
    held_ns: int
    waited_ns: int
    blocked_ns: int
    own_waited_ns: int


@dataclass(frozen=True)
class Fleet:
    """What is to be said of all workers together: in a `summary`, with `advice`, and one row for each worker."""

    summary: str
    advice: str
    workers: tuple[WorkerReport, ...]

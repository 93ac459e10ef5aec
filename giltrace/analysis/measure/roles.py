"""The roles of threads: those that do the same work share one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from giltrace.text import role_name
from giltrace.timeline.axis import Bools
from giltrace.timeline.model import Process


def roles(process: Process) -> tuple[str, ...]:
    """The role of each thread: its name, its numbers replaced by ``*`` where several threads then share it.

    A pool's "worker-1" and "worker-2" are both "worker-*"; a thread without a namesake keeps its name.
    """
    shared = roles_of([thread.name for thread in process.threads])
    return tuple(
        role if thread.name else f"tid {thread.tid}" for role, thread in zip(shared, process.threads, strict=True)
    )


def python_threads(process: Process) -> Bools:
    """Which threads run Python, as far as that is on record: others are a library's own, and do as that wants."""
    python = np.zeros(len(process.threads), np.bool_)
    python[process.holds["thread"]] = python[process.blocks["thread"]] = True
    # Without a GIL a thread may leave no record.
    return python | process.free_threaded


def roles_of(names: Sequence[str]) -> list[str]:
    """The role of each of the names of a process's threads."""
    patterns = [role_name(name) for name in names]
    shared = Counter(patterns)
    return [pattern if shared[pattern] > 1 else name for pattern, name in zip(patterns, names, strict=True)]

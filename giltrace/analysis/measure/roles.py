"""The roles of threads: those that do the same work share one."""

from __future__ import annotations

import re
from collections import Counter

from giltrace.timeline.model import Process

_NUMBER = re.compile(r"\d+")


def roles(process: Process) -> tuple[str, ...]:
    """The role of each thread: its name, its numbers replaced by ``*`` where several threads then share it.

    A pool's "worker-1" and "worker-2" are both "worker-*"; a thread without a namesake keeps its name.
    """
    patterns = [_NUMBER.sub("*", thread.name) for thread in process.threads]
    shared = Counter(patterns)
    return tuple(
        pattern if thread.name and shared[pattern] > 1 else thread.name or f"tid {thread.tid}"
        for pattern, thread in zip(patterns, process.threads, strict=True)
    )

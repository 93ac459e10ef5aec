"""What is worked out of a process once, for all that ask for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from giltrace.timeline.model import Process

P = ParamSpec("P")
T = TypeVar("T")


def once(work: Callable[Concatenate[Process, P], T]) -> Callable[Concatenate[Process, P], T]:
    """Let what `work` finds of a process be kept with it (`Process.known`); further arguments must be hashable.

    Whoever gets it does not write to it.
    """

    @wraps(work)
    def known(process: Process, /, *args: P.args, **kwargs: P.kwargs) -> T:
        key = (work, args, tuple(kwargs.items()))
        if key not in process.known:
            process.known[key] = work(process, *args, **kwargs)
        found: T = process.known[key]
        return found

    return known

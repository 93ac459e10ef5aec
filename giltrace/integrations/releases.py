"""`giltrace.assert_releases_gil`: does a call let other threads run?"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from giltrace.analysis.durations import duration, percent
from giltrace.errors import TargetError
from giltrace.integrations.seen import Seen
from giltrace.integrations.watch import Watch

R = TypeVar("R")

#: What the call of a function costs by itself is a good part of calls that are shorter (ns).
SHORT_NS = 100_000

HOW_TO_RELEASE = (
    "let the native code there give the GIL up while it needs no Python objects (C: Py_BEGIN_ALLOW_THREADS, Cython: "
    "nogil, pybind11: gil_scoped_release, PyO3: Python::detach); code in Python cannot"
)


def assert_releases_gil(func: Callable[..., R], *args: Any, share: float = 0.9, **kwargs: Any) -> R:
    """Call ``func(*args, **kwargs)`` and return what it returns; fail if it did not do without the GIL for `share`.

    The share is of the call's time in this thread, from 0 to 1; time in which the thread waited for the GIL or had no
    core counts neither way, and other threads do not count. Garbage is not collected meanwhile, and a thread of our
    own asks for the GIL each millisecond. What `func` raises passes through.

    Raises `AssertionError` with the line that had the GIL, `TypeError` for a function that does its work after the
    call, `ValueError` for a share that is none, and `unittest.SkipTest`, which pytest takes for a skip as well, where
    there is no GIL or it cannot be watched.
    """
    __tracebackhide__ = True
    check_share(share)
    _check_function(func)
    with _skipping(), collecting_nothing():
        watch = Watch(asked=True, lines=lambda seen: seen.share_at_most < share)
        with watch:
            result = func(*args, **kwargs)
    if inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result):
        raise TypeError(f"{name_of(func)} returned {_a(result)}: its work is done after the call. {_HOW_TO_RUN}")
    problem = too_little_released(watch.seen, share, name_of(func))
    if problem:
        raise AssertionError(problem)
    return result


_HOW_TO_RUN = "Pass a function that does all of it, like lambda: asyncio.run(main())"


def check_share(share: object) -> None:
    """Raise `ValueError` if it is no share of 1."""
    __tracebackhide__ = True
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ValueError(f"{share!r} is no share: write a number from 0 to 1, like 0.9")


def _check_function(func: object) -> None:
    __tracebackhide__ = True
    if not callable(func):
        raise TypeError(f"{func!r} cannot be called: pass the function and its arguments, not what it returned")
    called = func if inspect.isroutine(func) or isinstance(func, functools.partial) else type(func).__call__
    for kind, word in (
        (inspect.iscoroutinefunction, "coroutine"),
        (inspect.isasyncgenfunction, "asynchronous generator"),
        (inspect.isgeneratorfunction, "generator"),
    ):
        if kind(func) or kind(called):
            raise TypeError(f"{name_of(func)} is a {word} function: calling it does not run it. {_HOW_TO_RUN}")


def _a(result: object) -> str:
    return f"a {type(result).__name__}"


def name_of(func: object) -> str:
    """What people call a function."""
    while isinstance(func, functools.partial):
        func = func.func
    name = getattr(func, "__qualname__", None) or type(func).__qualname__
    module = getattr(func, "__module__", None)
    return str(name) if module in (None, "builtins", "__main__") else f"{module}.{name}"


@contextlib.contextmanager
def _skipping() -> Iterator[None]:
    """Turn that it cannot be watched into a skip."""
    try:
        yield
    except TargetError as error:
        from unittest import SkipTest

        raise SkipTest(error.message) from None


@contextlib.contextmanager
def collecting_nothing() -> Iterator[None]:
    """Keep the garbage for later: a collection of all that a test run has made is not the doing of what is judged."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def too_little_released(seen: Seen, share: float, name: str) -> str:
    """Say that `name` did not do without the GIL for `share` of its time, and what to do; "" if it did."""
    if seen.share_at_most >= share:
        return ""
    length = seen.held + seen.off
    hold = seen.own_holds[seen.longest]
    place = seen.where(hold) or f"{name} itself"
    short = f"pass it more work: a call that takes less than {duration(SHORT_NS)} tells little"
    return "\n".join(
        [
            f"{name} was without the GIL for {percent(seen.share)} of its {duration(length)}; wanted: {percent(share)}",
            f"  longest hold: {duration(int(seen.lengths[seen.longest]))} in {place}",
            f"  to do: {short if length < SHORT_NS else HOW_TO_RELEASE}",
        ]
    )

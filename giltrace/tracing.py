"""`giltrace.trace`: a recording of the running process, by a block or a decorator."""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from giltrace.errors import UsageError

if TYPE_CHECKING:
    from giltrace.api import Recording
    from giltrace.timeline.model import Timeline

Function = TypeVar("Function", bound=Callable[..., Any])


@overload
def trace(name: Function) -> Function: ...


@overload
def trace(name: str | os.PathLike[str] | None = None, *, stacks: int = 128, force: bool = False) -> Tracing: ...


def trace(
    name: Function | str | os.PathLike[str] | None = None, *, stacks: int = 128, force: bool = False
) -> Function | Tracing:
    """Record this process while a block runs, or each call of a function::

        with giltrace.trace("slow") as recording:   # slow.giltrace
            work()
        print(recording.report())

        @giltrace.trace()                           # app.giltrace, app.2.giltrace, ...
        def work(): ...

    Without a name it is the program's, as with `giltrace record`, in the current directory, and numbered where that is
    taken; a name that was given and is taken is refused, unless `force` replaces the earlier recording. The block gets
    a `Recording`, to be read once the block has ended.

    All threads are followed, those that run already too: exactly from the first time on that each takes the GIL. What
    is recorded is the GIL with the core at each acquire, and up to `stacks` Python frames per release (0: none). Core
    switches need a recorder outside of the process (`giltrace record`): what threads do off the GIL is not known here.
    If the process puts a seccomp filter on itself meanwhile, the recording is left as it is, which reads the same.
    Raises `OutputError` if it cannot be written, `TargetError` if tracing cannot start.
    """
    if callable(name):
        return Tracing(None, stacks, force)(name)
    return Tracing(None if name is None else Path(name), stacks, force)


class Tracing:
    """What `trace` returns: a context and a decorator, to be used as often as wanted but once at a time."""

    def __init__(self, name: Path | None, stacks: int, force: bool) -> None:
        self._name = name
        self._stacks = stacks
        self._force = force
        self._begun: AbstractContextManager[Path] | None = None
        self._ended: Callable[[], None] = lambda: None
        self._calls = threading.Lock()

    def __enter__(self) -> Recording:
        from giltrace.api import Recording
        from giltrace.launch.inprocess import trace_here

        begun = trace_here(self._name, stacks=self._stacks, force=self._force)
        path = begun.__enter__()
        ended = threading.Event()
        self._begun, self._ended = begun, ended.set

        def read() -> Timeline:
            from giltrace.timeline.load import load

            if not ended.is_set():
                raise UsageError(f"{path} is still being written", "read it after the block that it is of")
            return load(path)

        return Recording(path, read)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        begun, self._begun = self._begun, None
        if begun is not None:
            try:
                # The program's own error is its own: the tracer only has to end.
                begun.__exit__(None, None, None)
            finally:
                self._ended()

    def __call__(self, function: Function) -> Function:
        """Record each call of `function`; one within another, or at the same time, is in that one's recording."""
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise UsageError(
                f"{function.__qualname__} is a generator: calling it runs nothing",
                "trace where it is iterated: with giltrace.trace(): ...",
            )

        @functools.wraps(function)
        def traced(*arguments: Any, **named: Any) -> Any:
            with self._unless_at_work():
                return function(*arguments, **named)

        @functools.wraps(function)
        async def traced_coroutine(*arguments: Any, **named: Any) -> Any:
            with self._unless_at_work():
                return await function(*arguments, **named)

        wrapped: Any = traced_coroutine if inspect.iscoroutinefunction(function) else traced
        return wrapped  # type: ignore[no-any-return]

    @contextmanager
    def _unless_at_work(self) -> Iterator[None]:
        if not self._calls.acquire(blocking=False):
            yield
            return
        try:
            with self:
                yield
        finally:
            self._calls.release()

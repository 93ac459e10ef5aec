"""The workers of a cluster as the client reaches them: asked one by one, with a limit, through the scheduler."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NamedTuple

from distributed import Client

from giltrace.errors import TargetError, UsageError
from giltrace.integrations.dask import worker

#: So many workers are asked at once.
_AT_ONCE = 16
#: So long a worker may take to answer: its loop waits for the GIL too.
ANSWER_SECONDS = 30.0
_ROUNDS = 24
#: So often it is looked whether those that have not answered are still there.
_LOOK_SECONDS = 1.0
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


class Bounds(NamedTuple):
    """The client's CLOCK_MONOTONIC is ahead of another by `low` ns at least and by `high` at most."""

    low: int
    high: int

    @property
    def offset_ns(self) -> int:
        """The middle, which is wrong by `error_ns` at most."""
        return (self.low + self.high) // 2

    @property
    def error_ns(self) -> int:
        """Half of what it may be."""
        return (self.high - self.low + 1) // 2

    def also(self, other: Bounds) -> Bounds:
        """Bounds on all that lies between two measurements, as clocks drift."""
        return Bounds(min(self.low, other.low), max(self.high, other.high))


def bounds(readings: list[tuple[int, int, int]]) -> Bounds:
    """What readings of the other clock, each between two of the client's, leave: before, the other, and after.

    Each was read somewhere between the two. So no more is left open than by the shortest round trip, half to each side.
    """
    low = max(before - there for before, there, _ in readings)
    high = min(after - there for _, there, after in readings)
    return Bounds(min(low, high), max(low, high))


class Cluster:
    """Asks workers, by their addresses; what they raise, or that they do not answer, is their answer."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="giltrace-dask")

    def close(self) -> None:
        """Ask no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def workers(self) -> list[str]:
        """The addresses of the workers that there are now."""
        asked = self._threads.submit(self._client.nthreads)
        return list(asked.result(ANSWER_SECONDS))

    def ask(self, function: Callable[..., Any], asked: Mapping[str, tuple[Any, ...]]) -> dict[str, Any]:
        """Call `function` in each worker with the arguments that it is `asked` with; by address what it returned."""
        futures = {address: self._threads.submit(self._call, function, address, *asked[address]) for address in asked}
        until = time.monotonic() + ANSWER_SECONDS
        open_ = set(futures)
        while open_ and time.monotonic() < until:
            wait([futures[address] for address in open_], _LOOK_SECONDS)
            open_ = {address for address in open_ if not futures[address].done()}
            # Who is gone is asked in vain, and the scheduler goes on trying for long.
            open_ &= set(self.workers()) if open_ else open_
        return {address: _answer(future) for address, future in futures.items()}

    def ask_all(self, function: Callable[..., Any], addresses: list[str], *arguments: Any) -> dict[str, Any]:
        """The same with equal arguments."""
        return self.ask(function, dict.fromkeys(addresses, arguments))

    def one(self, function: Callable[..., Any], address: str, *arguments: Any) -> Any:
        """Call `function` in one worker; raises what it raises."""
        answer = self.ask(function, {address: arguments})[address]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def measure(self, address: str) -> Bounds | None:
        """Compare a worker's clock with the client's by round trips; None if it does not answer."""
        asked = self._threads.submit(self._rounds, address)
        wait([asked], ANSWER_SECONDS)
        answer = _answer(asked)
        return None if isinstance(answer, Exception) else bounds(answer)

    def _rounds(self, address: str) -> list[tuple[int, int, int]]:
        readings = []
        for _ in range(_ROUNDS):
            before = time.monotonic_ns()
            there = self._call(worker.now, address)
            readings.append((before, there, time.monotonic_ns()))
        return readings

    def _call(self, function: Callable[..., Any], address: str, *arguments: Any) -> Any:
        answer = self._client.run(function, *arguments, workers=[address], on_error="return")[address]
        if isinstance(answer, Exception):
            raise answer
        return answer


def _answer(future: Future[Any]) -> Any:
    if not future.done():
        future.cancel()
        return TimeoutError("it did not answer")
    error = future.exception()
    if error is None:
        return future.result()
    return error if isinstance(error, Exception) else RuntimeError(str(error))

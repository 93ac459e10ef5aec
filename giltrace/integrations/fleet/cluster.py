"""The workers of a cluster as whoever records reaches them: asked one by one, with a limit, in the cluster's way."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, ClassVar, NamedTuple

from giltrace.integrations.fleet.session import Ground, now

#: So many workers are asked at once.
_AT_ONCE = 16
#: So long a worker may take to answer: its loop waits for the GIL too.
ANSWER_SECONDS = 30.0
_ROUNDS = 24
#: So often it is looked whether those that have not answered are still there.
_LOOK_SECONDS = 1.0


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


class Begin(NamedTuple):
    """With what workers begin: the recording's token, how deep stacks are, and what must be so there too."""

    token: str
    stacks: int
    most_bytes: int
    version: str


class Cluster(ABC):
    """Asks workers, by their addresses; what they raise, or that they do not answer, is their answer."""

    #: What recordings of it are called, and their tasks' source.
    name: ClassVar[str]
    #: Where workers have their files.
    ground: ClassVar[Ground]

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="giltrace-fleet")

    def close(self) -> None:
        """Ask no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    @abstractmethod
    def address(self) -> str:
        """Where the cluster is."""

    @abstractmethod
    def begin(self, given: Begin) -> None:
        """Let workers begin, and those that join from now on."""

    @abstractmethod
    def leave(self, token: str) -> None:
        """Let no more workers begin."""

    @abstractmethod
    def _listed(self) -> list[str]:
        """The addresses of the workers that there are now."""

    @abstractmethod
    def _call(self, function: Callable[..., Any], address: str, *arguments: Any) -> Any:
        """Call `function` in a worker; raises what it raises."""

    @staticmethod
    @abstractmethod
    def prefix_of(key: str) -> str:
        """The kind of a task, of its key."""

    def no_workers(self) -> tuple[str, str] | None:
        """What is said where there are no workers, and a remedy; None if they come as they are needed."""
        return None

    def readers(self, workers: list[str]) -> list[str]:
        """Who can read what workers have left that are gone: as far as is known, these `workers`."""
        return workers

    def at(self, address: str) -> str:
        """Who reads the clock where a worker is: that one, if nobody is there beside it."""
        return address

    def left_out(self) -> list[str]:
        """What is told of workers that cannot be asked."""
        return []

    def workers(self) -> list[str]:
        """The addresses of the workers that there are now."""
        return self._threads.submit(self._listed).result(ANSWER_SECONDS)

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
            there = self._call(now, address)
            readings.append((before, there, time.monotonic_ns()))
        return readings


def _answer(future: Future[Any]) -> Any:
    if not future.done():
        future.cancel()
        return TimeoutError("it did not answer")
    error = future.exception()
    if error is None:
        return future.result()
    return error if isinstance(error, Exception) else RuntimeError(str(error))

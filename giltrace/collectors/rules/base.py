"""What every rule of a flight recorder offers to it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from giltrace.analysis.durations import nanoseconds
from giltrace.analysis.findings.stall import Look
from giltrace.collectors.rules.outside import Outside
from giltrace.recording.layout import Kind
from giltrace.recording.live import Update
from giltrace.recording.trigger import Trigger

#: What goes on for so long (ns) is told while it does: it may never end.
PATIENCE_NS = 2_000_000_000


@dataclass(frozen=True)
class Caught:
    """A trigger, and what of it is not on record.

    `what` is what it happened to ("the asyncio loop"), empty for the thread itself; `goes_on`: it had not ended when it
    was told. `looks` are what was seen from outside meanwhile; `late`: it was over before anybody looked.
    """

    trigger: Trigger
    what: str = ""
    goes_on: bool = False
    looks: tuple[Look, ...] = ()
    late: bool = False


class Rule:
    """When to dump; `text` is as typed, and `value` what stands behind the ``>``.

    Raises ValueError for a value that makes no sense.
    """

    kind: ClassVar[str] = ""
    #: Whether a value belongs to it.
    has_value: ClassVar[bool] = True
    #: Whether somebody asks, so that no dump of it is one too many.
    asked: ClassVar[bool] = False

    def __init__(self, text: str, value: str) -> None:
        self.text = text
        self.limit_ns = duration_of(value, text) if self.has_value else 0
        #: How many triggers there were of which nothing is known.
        self.missed = 0

    def prepare(self, env: dict[str, str]) -> None:
        """Change the environment that the target will start with."""

    def poll(self, folder: Path) -> list[Caught]:
        """What there is new; `folder` is the recording."""
        return []


@dataclass
class Followed:
    """What a rule knows of a process: the ids of its threads, by the tracer's numbers."""

    tids: dict[int, int] = field(default_factory=dict, kw_only=True)


Known = TypeVar("Known", bound=Followed)


class Following(Rule, Generic[Known]):
    """A rule that follows what all threads do; of each process it keeps what is `Known` as long as that goes on."""

    def __init__(self, text: str, value: str) -> None:
        super().__init__(text, value)
        self._processes: dict[int, Known] = {}

    def see(self, update: Update, until: int, outside: Outside) -> list[Caught]:
        """What there is new, by what a process did up to `until`."""
        number = update.file.number
        process = self._processes.get(number)
        if process is None:
            process = self._processes[number] = self._meet(update)
        process.tids |= {thread: info.tid for thread, info in update.threads.items()}
        found = self._follow(process, update, until, outside)
        for thread in ended(update):
            process.tids.pop(thread, None)
        if update.ended:
            del self._processes[number]
        return found

    @abstractmethod
    def _meet(self, update: Update) -> Known:
        """What is known of a process as it comes."""

    @abstractmethod
    def _follow(self, process: Known, update: Update, until: int, outside: Outside) -> list[Caught]:
        """See `see`."""

    def _trigger(self, process: Known, update: Update, thread: int, start: int, end: int) -> Trigger:
        """A trigger of this rule: a thread of the process, by the tracer's number, took from `start` to `end`."""
        return Trigger(self.kind, self.text, int(end), int(end - start), update.file.pid, process.tids.get(thread, 0))


def ended(update: Update) -> list[int]:
    """The threads that have ended, by the tracer's numbers."""
    found: list[int] = update.events["thread"][update.events["kind"] == Kind.THREAD_END].tolist()
    return found


def duration_of(value: str, text: str) -> int:
    """Nanoseconds of a limit, which is none of 0. Raises ValueError."""
    found = nanoseconds(value)
    if not found or found >= 1 << 62:
        raise ValueError(f"{text!r}: {value!r} is no duration, write one like 50ms")
    return found

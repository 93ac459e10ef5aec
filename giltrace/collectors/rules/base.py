"""What every rule of a flight recorder offers to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from giltrace.analysis.durations import nanoseconds
from giltrace.analysis.findings.stall import Look
from giltrace.collectors.rules.outside import Outside
from giltrace.recording.live import Update
from giltrace.recording.trigger import Trigger

#: What goes on for so long (ns) is told while it does: it may never end.
PATIENCE_NS = 2_000_000_000


@dataclass(frozen=True)
class Caught:
    """A trigger, and what of it is not on record.

    `what` is what it happened to ("the asyncio loop"), empty for the thread itself; `goes_on`: it had not ended when it
    was told. `looks` are what was seen from outside meanwhile.
    """

    trigger: Trigger
    what: str = ""
    goes_on: bool = False
    looks: tuple[Look, ...] = ()


class Rule:
    """When to dump; `text` is as typed, and `value` what stands behind the ``>``.

    Raises ValueError for a value that makes no sense.
    """

    kind: ClassVar[str] = ""
    #: Whether a value belongs to it.
    has_value: ClassVar[bool] = True
    #: Whether it wants to `see` what all threads do.
    follows: ClassVar[bool] = False
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

    def see(self, update: Update, until: int, outside: Outside) -> list[Caught]:
        """The same by what a process did up to `until`, which is given to rules that follow."""
        return []

    def caught(self, time: int, length: int, process: Update, thread: int, tids: Mapping[int, int]) -> Trigger:
        """A trigger of this rule: a thread of the process, by the tracer's number, took so long until then."""
        return Trigger(self.kind, self.text, int(time), int(length), process.file.pid, tids.get(thread, 0))


def duration_of(value: str, text: str) -> int:
    """Nanoseconds of a limit, which is none of 0. Raises ValueError."""
    found = nanoseconds(value)
    if not found or found >= 1 << 62:
        raise ValueError(f"{text!r}: {value!r} is no duration, write one like 50ms")
    return found

"""Dump when a thread slept in one of the interpreter's locks for longer than a limit, for want of that lock."""

from __future__ import annotations

from dataclasses import dataclass

from giltrace.collectors.rules.base import Caught, Followed, Following
from giltrace.collectors.rules.outside import Outside
from giltrace.collectors.rules.sleepers import Sleepers, of_a_lock
from giltrace.recording.live import Update


@dataclass
class _Process(Followed):
    sleepers: Sleepers


class Lock(Following[_Process]):
    """``lock>50ms``: a thread got a lock that another one had after it had slept in it for longer.

    What threads sleep in idly does not count (`sleepers.of_a_lock`).
    """

    kind = "lock"

    def _meet(self, update: Update) -> _Process:
        return _Process(Sleepers(self.limit_ns))

    def _follow(self, process: _Process, update: Update, until: int, outside: Outside) -> list[Caught]:
        slept = process.sleepers.take(update, until)
        if slept and update.file.stacks is not None:
            update.file.stacks.update()
        return [
            Caught(self._trigger(process, update, one.sleep.thread, one.sleep.since, one.end))
            for one in slept
            if of_a_lock(update.file, one.sleep, owned=bool(one.owned))
        ]

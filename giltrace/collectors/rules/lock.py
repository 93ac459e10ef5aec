"""Dump when a thread slept in one of the interpreter's locks for longer than a limit, for want of that lock."""

from __future__ import annotations

from dataclasses import dataclass, field

from giltrace.collectors.rules.base import Caught, Rule
from giltrace.collectors.rules.outside import Outside
from giltrace.collectors.rules.sleepers import Sleepers, of_a_lock
from giltrace.recording.live import Update


@dataclass
class _Process:
    sleepers: Sleepers
    tids: dict[int, int] = field(default_factory=dict)


class Lock(Rule):
    """``lock>50ms``: a thread got a lock that another one had after it had slept in it for longer.

    What threads sleep in idly does not count (`sleepers.of_a_lock`).
    """

    kind = "lock"
    follows = True

    def __init__(self, text: str, value: str) -> None:
        super().__init__(text, value)
        self._processes: dict[int, _Process] = {}

    def see(self, update: Update, until: int, outside: Outside) -> list[Caught]:
        """See `Rule.see`."""
        file = update.file
        process = self._processes.setdefault(file.number, _Process(Sleepers(self.limit_ns)))
        process.tids |= {number: info.tid for number, info in update.threads.items()}
        slept = process.sleepers.take(update, until)
        if slept and file.stacks is not None:
            file.stacks.update()
        if update.ended:
            self._processes.pop(file.number, None)
        return [
            Caught(self.caught(one.end, one.end - one.sleep.since, update, one.sleep.thread, process.tids))
            for one in slept
            if of_a_lock(file, one.sleep, owned=bool(one.owned))
        ]

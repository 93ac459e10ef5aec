"""Dump when a thread slept in one of the interpreter's locks for longer than a limit, for want of that lock."""

from __future__ import annotations

from dataclasses import dataclass, field

from giltrace.collectors.rules.base import Caught, Followed, Following
from giltrace.collectors.rules.given_back import Posts, of_a_lock
from giltrace.collectors.rules.outside import Outside
from giltrace.recording.live import Update
from giltrace.recording.live_sleeps import LiveSleeps


@dataclass
class _Process(Followed):
    sleeps: LiveSleeps
    posts: Posts = field(default_factory=Posts)


class Lock(Following[_Process]):
    """``lock>50ms``: a thread got a lock that another one had after it had slept in it for longer.

    What threads sleep in idly does not count (`given_back.of_a_lock`).
    """

    kind = "lock"

    def _meet(self, update: Update) -> _Process:
        return _Process(LiveSleeps(self.limit_ns))

    def _follow(self, process: _Process, update: Update, until: int, outside: Outside) -> list[Caught]:
        slept = process.sleeps.take(update)
        sleeping = (*process.sleeps.now.values(), *(sleep for sleep, _ in slept))
        process.posts.take(update, {sleep.semaphore for sleep in sleeping})
        if slept and update.file.stacks is not None:
            update.file.stacks.update()
        return [
            Caught(self._trigger(process, update, sleep.thread, sleep.since, end))
            for sleep, end in slept
            if of_a_lock(update.file, sleep, owned=process.posts.by_owner(sleep, end))
        ]

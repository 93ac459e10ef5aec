"""Dump when threads wait for each other in a circle, each in a lock that the next one has taken."""

from __future__ import annotations

from dataclasses import dataclass, field

from giltrace.collectors.rules.base import Caught, Followed, Following
from giltrace.collectors.rules.given_back import of_a_lock
from giltrace.collectors.rules.outside import Outside
from giltrace.recording.live import Update
from giltrace.recording.live_file import LiveFile
from giltrace.recording.live_sleeps import LiveSleeps, Sleep

#: A circle is one that lasts for so long: a shorter one a timeout may be meant to end.
CIRCLE_NS = 1_000_000_000
#: Where it is not known who has a lock, threads are stuck if the process stands still for so long.
STANDSTILL_NS = 5_000_000_000


@dataclass
class _Process(Followed):
    sleeps: LiveSleeps = field(default_factory=LiveSleeps)
    moved: int = 0
    #: Threads, and since when they sleep, of which it was told.
    told: frozenset[tuple[int, int]] = frozenset()


class Deadlock(Following[_Process]):
    """``deadlock``: a circle of threads that sleep without a time limit, for `CIRCLE_NS`.

    From 3.13 on locks do not tell who has them: there it is two threads, at least, that sleep in different locks of the
    program's, in a process of which nobody did anything for `STANDSTILL_NS`.
    """

    kind = "deadlock"
    has_value = False

    def _meet(self, update: Update) -> _Process:
        return _Process()

    def _follow(self, process: _Process, update: Update, until: int, outside: Outside) -> list[Caught]:
        if update.ended:
            return []
        process.sleeps.take(update)
        if len(update.events):
            process.moved = int(update.events["time"][-1])
        long = [one for one in process.sleeps.now.values() if not one.timed and until - one.since >= CIRCLE_NS]
        if len(long) < 2 or frozenset((one.thread, one.since) for one in long) == process.told:
            return []
        circle = _circle(long) or self._stuck(update.file, process, long, until)
        key = frozenset((one.thread, one.since) for one in circle)
        if not circle or key <= process.told:
            return []
        process.told |= key
        since = max(one.since for one in circle)
        return [Caught(self._trigger(process, update, circle[0].thread, since, until), goes_on=True)]

    @staticmethod
    def _stuck(file: LiveFile, process: _Process, long: list[Sleep], until: int) -> list[Sleep]:
        if until - process.moved < STANDSTILL_NS:
            return []
        if file.stacks is not None:
            file.stacks.update()
        mine = [one for one in long if not one.had and of_a_lock(file, one, owned=True)]
        return mine if len({one.address for one in mine}) > 1 else []


def _circle(sleeps: list[Sleep]) -> list[Sleep]:
    """Threads each of which sleeps in a semaphore that the next one had taken; empty if there are none."""
    owner = {semaphore: one for one in sleeps for semaphore in one.had if semaphore != one.semaphore}
    for first in sleeps:
        way = [first]
        while (following := owner.get(way[-1].semaphore)) is not None and following not in way:
            way.append(following)
        if following is not None and following in way:
            return way[way.index(following) :]
    return []

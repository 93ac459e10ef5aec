"""Deadlocks in the live view: told while they last, certain or not, from records and from outside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from giltrace.recording.events import ThreadInfo
from giltrace.recording.layout import Way
from giltrace.recording.live import Update
from giltrace.recording.live_file import LiveFile
from giltrace.recording.sleepers import Look, Sleeper
from giltrace.views.top.locks import Locks
from giltrace.views.top.model import Deadlock
from giltrace.views.top.window import Window
from tests.unit.gil_events import MS, Script

SECOND = 1_000_000_000
ONE, OTHER = 0x7000, 0x8000
PEOPLE = {1: ThreadInfo(101, "payer"), 2: ThreadInfo(102, "booker")}


class Stacks:
    """Stack n is a line n of the program."""

    tops = ()

    def update(self) -> None:
        pass

    def top(self, number: np.ndarray[tuple[int], np.dtype[np.int32]]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        return np.full(len(number), -1, np.int64)

    def stack(self, number: int) -> tuple[tuple[str, str, int], ...]:
        return (("work", "/srv/app.py", number),)


def live_file() -> LiveFile:
    known = {"pid": 100, "cmdline": "python app.py", "python": "3.11", "note": ""}
    return cast(LiveFile, SimpleNamespace(number=0, start=0, stacks=Stacks(), lost=0, missed=0, lost_stacks=0, **known))


def update(script: Script, file: LiveFile) -> Update:
    events = script.events()
    rows = events.events.copy()
    rows["stack"] = rows["thread"] + 7
    threads = {number: PEOPLE[number] for number in np.unique(rows["thread"]).tolist()}
    return Update(file, rows, threads, (), False, events.places, events.held)


def locks(*scripts: Script) -> Locks:
    file = live_file()
    made = Locks(file)
    for script in scripts:
        made.take(update(script, file))
    return made


def circle(way: int = 0) -> Script:
    """Each sleeps in the lock that the other one has."""
    script = Script().slept(100 * MS, 1, ONE, way=way, held=[OTHER])
    return script.slept(200 * MS, 2, OTHER, way=way, held=[ONE])


def outside(*asleep: Sleeper, first: int = SECOND) -> Callable[[int], Look]:
    return lambda pid: Look(first, asleep)


def sleeper(tid: int, semaphore: int, owner: int = 0, seen: int = SECOND) -> Sleeper:
    way = int(Way.PARKED | Way.WITH_ARGUMENT)
    return Sleeper(100, tid, seen, 2 * SECOND, semaphore, semaphore + 8, way, owner, (("work", "/srv/app.py", tid),))


def told(made: Locks, until: int = 2 * SECOND, ask: Callable[[int], Look] | None = None) -> Deadlock:
    found = made.standstill(until, PEOPLE, {103: "late"}, ask)
    assert found is not None
    return found


def test_a_circle_by_what_threads_had_taken() -> None:
    found = told(locks(circle()))
    assert (found.pid, found.certain, found.for_ns) == (100, True, 1_800 * MS)
    assert found.told == (
        "Deadlock for 1.80 s: 'payer' at work (app.py:8) wants a lock that 'booker' has, "
        "'booker' at work (app.py:9) wants a lock that 'payer' has."
    )
    assert [(one.tid, one.lock, one.waits_for) for one in found.threads] == [(101, ONE, 102), (102, OTHER, 101)]
    assert "in the same order everywhere" in found.advice


def test_it_is_told_soon_and_not_for_a_moment() -> None:
    assert locks(circle()).standstill(240 * MS, PEOPLE, {}, None) is None
    assert locks(circle()).standstill(250 * MS, PEOPLE, {}, None) is not None


def test_it_is_gone_once_one_gives_up() -> None:
    awake = Script().awoke(300 * MS, 2)
    assert locks(circle(), awake).standstill(2 * SECOND, PEOPLE, {}, None) is None
    ended = Script().end(300 * MS, 1)
    assert locks(circle(), ended).standstill(2 * SECOND, PEOPLE, {}, None) is None


def test_without_owners_it_may_be_one_after_a_second() -> None:
    script = Script().slept(100 * MS, 1, ONE).slept(200 * MS, 2, OTHER)
    found = told(locks(script))
    assert not found.certain
    assert found.told == (
        "May be a deadlock, for 1.80 s: 'payer' at work (app.py:8), 'booker' at work (app.py:9), "
        "each in a lock that nobody gives back."
    )
    assert [one.waits_for for one in found.threads] == [None, None]
    assert locks(script).standstill(1_100 * MS, PEOPLE, {}, None) is None
    timed = Script().slept(100 * MS, 1, ONE, way=Way.TIMED).slept(200 * MS, 2, OTHER, way=Way.TIMED)
    assert locks(timed).standstill(2 * SECOND, PEOPLE, {}, None) is None


def test_whoever_was_harmless_is_looked_at_again_once_something_is_known() -> None:
    made, unknown = Locks(live_file()), [replace(sleeper(101, ONE), frames=()), replace(sleeper(103, OTHER), frames=())]
    for _ in range(2):
        assert made.standstill(9 * SECOND, PEOPLE, {}, outside(*unknown)) is None
    assert told(made, 9 * SECOND, outside(sleeper(101, ONE), sleeper(103, OTHER))).certain is False
    assert told(made, 9 * SECOND, outside(sleeper(101, ONE, 103), sleeper(103, OTHER, 101))).certain


def test_a_circle_with_a_limit_is_one_while_it_lasts() -> None:
    assert told(locks(circle(Way.TIMED))).certain


def test_threads_in_one_lock_are_none() -> None:
    script = Script().slept(100 * MS, 1, ONE).slept(200 * MS, 2, ONE)
    assert locks(script).standstill(9 * SECOND, PEOPLE, {}, None) is None


def test_owners_that_only_the_locks_know() -> None:
    """Records know since when; who has a lock that parks threads, it may say itself."""
    script = Script()
    for at, thread, semaphore in ((100 * MS, 1, ONE), (200 * MS, 2, OTHER)):
        script.slept(at, thread, semaphore, semaphore + 8, way=Way.WITH_ARGUMENT)
    ask = outside(sleeper(101, ONE, 102), sleeper(102, OTHER, 101))
    found = told(locks(script), ask=ask)
    assert (found.certain, found.for_ns) == (True, 1_800 * MS)
    assert not told(locks(script)).certain


@pytest.mark.parametrize(("first", "since"), [(SECOND, None), (SECOND // 2, SECOND)])
def test_who_is_known_from_outside_only(first: int, since: int | None) -> None:
    ask = outside(sleeper(101, ONE, 103), sleeper(103, OTHER, 101), first=first)
    found = told(Locks(live_file()), ask=ask)
    assert found.for_ns == since
    assert {one.name for one in found.threads} == {"payer", "late"}
    words = "Deadlock since before giltrace came: " if since is None else "Deadlock for 1.00 s: "
    assert found.told.startswith(words)
    assert "work (app.py:103)" in found.told


def test_the_window_tells_of_it_until_the_process_ends() -> None:
    window, file = Window(0), live_file()
    window.feed([update(circle(), file)], SECOND)
    (found,) = window.snapshot().deadlocks
    assert found.certain
    assert {one.name for one in found.threads} == {"payer", "booker"}
    assert window.snapshot(pid=1).deadlocks == ()
    awake: Sequence[Update] = [update(Script().awoke(2 * SECOND, 1), file)]
    window.feed(list(awake), 3 * SECOND)
    assert window.snapshot().deadlocks == ()
    window.feed([replace(update(circle(), file), ended=True)], 4 * SECOND)
    assert window.snapshot().deadlocks == ()

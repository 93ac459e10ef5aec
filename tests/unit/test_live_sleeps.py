"""Who sleeps in a lock, followed as it is recorded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from giltrace.recording.live import Update
from giltrace.recording.live_file import LiveFile
from giltrace.recording.live_sleeps import LiveSleeps, Sleep
from tests.unit.gil_events import MS, Script

ONE, OTHER = 0x7000, 0x8000


def take(sleeps: LiveSleeps, script: Script) -> list[tuple[Sleep, int]]:
    told = script.events()
    return sleeps.take(Update(cast(LiveFile, SimpleNamespace()), told.events, {}, (), False, told.places, told.held))


def test_who_sleeps_now_and_had_what() -> None:
    sleeps = LiveSleeps()
    assert take(sleeps, Script().slept(MS, 0, ONE).awoke(2 * MS, 0).slept(3 * MS, 0, OTHER, held=[ONE])) == []
    assert {thread: (one.address, one.since, one.had) for thread, one in sleeps.now.items()} == {
        0: (OTHER, 3 * MS, (ONE,))
    }
    assert take(sleeps, Script().awoke(900 * MS, 0).slept(901 * MS, 1, ONE, 0x9000)) == []
    assert [(one.thread, one.address) for one in sleeps.now.values()] == [(1, 0x9000)]
    assert take(sleeps, Script().end(999 * MS, 1)) == []
    assert sleeps.now == {}


def test_long_sleeps_are_told_once_they_end() -> None:
    sleeps = LiveSleeps(50 * MS)
    script = Script().slept(0, 0, ONE).awoke(49 * MS, 0).slept(100 * MS, 0, OTHER).awoke(150 * MS, 0)
    assert [(one.address, one.since, end) for one, end in take(sleeps, script)] == [(OTHER, 100 * MS, 150 * MS)]
    take(sleeps, Script().slept(200 * MS, 0, ONE))
    assert [(one.since, end) for one, end in take(sleeps, Script().awoke(300 * MS, 0))] == [(200 * MS, 300 * MS)]


def test_who_falls_asleep_anew_was_up_meanwhile() -> None:
    sleeps = LiveSleeps(50 * MS)
    take(sleeps, Script().slept(0, 0, ONE))
    assert take(sleeps, Script().slept(200 * MS, 0, OTHER).awoke(210 * MS, 0)) == []
    assert sleeps.now == {}

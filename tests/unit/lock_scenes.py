"""Programs whose threads share one lock, as scenes: what they do while they have it differs."""

from __future__ import annotations

from giltrace.timeline.model import BlockEnd, LockKind
from tests.unit.block_events import Scene, library, own
from tests.unit.gil_events import MS, US

TURN = 10 * MS
#: In the standard library: a record is written, a thread joined, an item awaited.
STACKS = {
    "log": [library("acquire", "/usr/lib/python3.12/logging/__init__.py"), own("handle")],
    "join": [library("join"), own("main")],
    "get": [library("wait"), library("get", "/usr/lib/python3.12/queue.py"), own("consume")],
}


def taking_turns(turns: int = 20, *, python: bool = False, native: bool = False, at: str = "take") -> Scene:
    """Threads 1 and 2 have lock 0 for 10 ms in turns, of which they sleep most, or compute with the GIL or without.

    Who has it, works at "work" and gives it back at "give"; the other is blocked `at` a line meanwhile. The main thread
    may join them (`joined`).
    """
    made = Scene(3, STACKS).hold(0, 20 * US, 0, "start")
    for turn in range(turns):
        owner, begin = 1 + turn % 2, turn * TURN + 50 * US
        end = begin + TURN
        if python:
            made.hold(begin, end - 50 * US, owner, at)
        else:
            made.hold(begin, begin + 200 * US, owner, "work")
            if native:
                made.run(begin + 200 * US, end - 200 * US, owner)
            made.hold(end - 200 * US, end - 50 * US, owner, at)
        since = 100 * US if turn == 0 else begin - 50 * US
        made.block(since, end, 3 - owner, at=at, by=owner, woken=end - 100 * US, wake="give")
    return made


def joined(scene: Scene, turns: int = 20) -> Scene:
    """The main thread waits for the end of both, of thread 1 at last."""
    last = turns * TURN + 50 * US
    scene.hold(last, last + 10 * US, 1, "last").block(30 * US, last + 20 * US, 0, at="join", lock=1, by=1, owned=False)
    scene.ends = {1: last + 15 * US, 2: last}
    return scene.hold(last + 20 * US, last + 50 * US, 0, "end")


def brief_turns(turns: int = 4_000, ns: int = 20 * US) -> Scene:
    """They have it for so short a time that waking up takes longer."""
    made = Scene(3, STACKS).hold(0, 20 * US, 0, "start")
    for turn in range(turns):
        owner, begin = 1 + turn % 2, turn * ns + 50 * US
        made.hold(begin, begin + ns // 2, owner, "take")
        made.block(begin - US, begin + ns, 3 - owner, at="take", by=owner, woken=begin + ns - US, wake="give")
    return made


def in_a_circle(*, held: bool = True, gave_up: bool = False) -> Scene:
    """Threads 1 and 2 each have one lock from 10 ms on and want the other's, to the end or for 100 ms."""
    made = (
        Scene(3, STACKS).hold(0, MS, 0, "start").hold(5 * MS, 10 * MS, 1, "first").hold(10 * MS, 20 * MS, 2, "second")
    )
    end, ended = (120 * MS, BlockEnd.TIMED_OUT) if gave_up else (500 * MS, BlockEnd.OPEN)
    made.block(10 * MS, end, 1, at="first", lock=1, ended=ended, timed=gave_up, held=[0] if held else [])
    made.block(20 * MS, end, 2, at="second", lock=0, ended=ended, timed=gave_up, held=[1] if held else [])
    return made


def stopped(pauses: int = 10, ns: int = 4 * MS) -> Scene:
    """Without a GIL, thread 0 stops the world every 10 ms; threads 1 and 2 stand still then."""
    made = Scene(3, STACKS).hold(0, US, 0, "start")
    made.kinds[0] = LockKind.WORLD
    for pause in range(pauses):
        begin = pause * 10 * MS
        for thread in (1, 2):
            made.run(begin + ns, begin + 10 * MS, thread)
            made.block(begin + MS, begin + ns, thread, at="count", by=0, wake="collect", owned=False)
        made.run(begin + MS, begin + ns, 0)
    return made

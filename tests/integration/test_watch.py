"""`giltrace.watch`: a program is told of its own stalls."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue

import pytest

import giltrace
from giltrace.errors import TargetError, UsageError
from giltrace.recording.meta import Meta

SECONDS = 0.6


def block() -> None:
    time.sleep(SECONDS)


async def stalling(name: str = "mine") -> None:
    async def work() -> None:
        block()

    # The watch looks at what goes on: the loop has to be known by then.
    for _ in range(3):
        await asyncio.sleep(0.01)
    await asyncio.create_task(work(), name=name)
    await asyncio.sleep(0)


def heard(told: SimpleQueue[giltrace.Stall], act: Callable[[], object]) -> giltrace.Stall:
    """What is told of that; of what happens before the process that watches is up, it may not know."""
    while True:
        act()
        with contextlib.suppress(Empty):
            return told.get(timeout=5)


def test_a_callback_is_told_of_a_stall(tmp_path: Path) -> None:
    told: SimpleQueue[giltrace.Stall] = SimpleQueue()
    with giltrace.watch(stall=0.3, callback=told.put, keep=tmp_path, apart=0):
        stall = None
        while stall is None or not stall.task:
            stall = heard(told, lambda: asyncio.run(stalling()))
    assert str(stall) == stall.sentence
    assert stall.sentence.startswith("The asyncio loop of thread 'MainThread' stalled for ")
    assert (stall.kind, stall.cause, stall.thread, stall.pid) == ("stall", "blocking-call", "MainThread", os.getpid())
    assert stall.lines[0].startswith("block (test_watch.py:")
    assert stall.task == "mine"
    assert stall.duration >= SECONDS
    assert stall.ended <= time.monotonic()
    assert stall.dump is not None
    assert Meta.read(stall.dump).trigger is not None


def test_stalls_are_logged_unless_told_otherwise(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "giltrace"):
        while not caplog.records:
            with giltrace.watch(stall=0.3):
                asyncio.run(stalling())
            # What happened up to the end is still told, if the loop was seen by then.
    (record,) = caplog.records
    assert record.getMessage() == record.stall.sentence  # type: ignore[attr-defined]


def test_a_callback_that_fails_is_logged_and_the_watch_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    told: SimpleQueue[giltrace.Stall] = SimpleQueue()

    def fail(stall: giltrace.Stall) -> None:
        told.put(stall)
        raise LookupError

    with caplog.at_level(logging.ERROR, "giltrace"), giltrace.watch(stall=0.3, callback=fail, apart=0):
        for _ in range(2):
            heard(told, lambda: asyncio.run(stalling()))
    assert len(caplog.records) >= 2
    assert all(one.exc_info is not None for one in caplog.records)


def test_locks_and_processes_that_are_forked_are_watched_too() -> None:
    told: SimpleQueue[giltrace.Stall] = SimpleQueue()
    lock, has = threading.Lock(), threading.Event()

    def keep() -> None:
        with lock:
            has.set()
            time.sleep(SECONDS)

    def contend() -> None:
        has.clear()
        thread = threading.Thread(target=keep, name="keeper")
        thread.start()
        has.wait()
        with lock:
            pass
        thread.join()

    watching = giltrace.watch(stall=0.3, lock=0.3, callback=told.put, apart=0).start()
    try:
        stall = heard(told, contend)
        assert (stall.kind, stall.cause) == ("lock", "lock")
        assert "which thread 'keeper' had" in stall.sentence
        children = set[int]()

        def fork() -> None:
            child = os.fork()
            if child == 0:
                try:
                    asyncio.run(stalling())
                    watching.stop()  # nothing that a child can do
                finally:
                    os._exit(0)
            children.add(child)
            os.waitpid(child, 0)

        while heard(told, fork).pid not in children:
            pass
        begin, end = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(end)
            os.read(begin, 1)  # until the parent has ended the watch
            os._exit(0)
    finally:
        watcher = watching._watcher
        watching.stop()
    watching.stop()
    assert watcher is not None
    with pytest.raises(ProcessLookupError):
        os.kill(watcher.pid, 0)
    for descriptor in (end, begin):
        os.close(descriptor)
    os.waitpid(child, 0)


def test_it_can_begin_again() -> None:
    told: SimpleQueue[giltrace.Stall] = SimpleQueue()
    watching = giltrace.watch(stall=0.3, callback=told.put)
    for _ in range(2):
        with watching:
            with pytest.raises(UsageError, match="begun already"):
                watching.start()
            with pytest.raises(TargetError, match="traced already"):
                giltrace.watch().start()
            heard(told, lambda: asyncio.run(stalling()))


@pytest.mark.parametrize("wrong", [{"stall": None}, {"stall": 0.0}, {"stall": -1.0}, {"lock": 1e9}, {"apart": -1.0}])
def test_times_that_make_no_sense_are_refused(wrong: dict[str, float | None]) -> None:
    with pytest.raises(UsageError):
        giltrace.watch(**wrong)  # type: ignore[arg-type]

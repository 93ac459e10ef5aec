"""What threads were blocked by, told by the innermost frames of their stacks: those of each version's own library."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from giltrace.analysis.measure.block_causes import AWAITED, BlockCause, block_causes
from giltrace.analysis.measure.expressions import Expressions
from giltrace.recording.events import FRAME, StackTable
from giltrace.recording.layout import Way
from giltrace.timeline.model import Process
from tests.unit.gil_events import Script, timeline

LIB = "/usr/lib/python3.12/"
THREADING = f"{LIB}threading.py"
APP = ("/srv/app.py", "serve")
Frames = list[tuple[str, str]]


def threading(*names: str) -> Frames:
    return [*((THREADING, name) for name in names), APP]


#: Frames, innermost first. Functions have no class before 3.11.
STACKS: list[tuple[Frames, BlockCause]] = [
    ([], BlockCause.LOCK),
    ([APP], BlockCause.LOCK),
    (threading("RLock.acquire"), BlockCause.LOCK),
    (threading("Condition.__enter__"), BlockCause.LOCK),
    (threading("__enter__"), BlockCause.LOCK),
    (threading("Condition.wait"), BlockCause.CONDITION),
    (threading("wait"), BlockCause.CONDITION),
    (threading("Condition.wait", "Condition.wait_for"), BlockCause.CONDITION),
    (threading("wait", "wait_for"), BlockCause.CONDITION),
    # Awake, and without the condition's own lock yet: others have that.
    (threading("Condition._acquire_restore", "Condition.wait"), BlockCause.LOCK),
    (threading("Condition.notify"), BlockCause.LOCK),
    (threading("Condition.wait", "Event.wait"), BlockCause.EVENT),
    (threading("wait", "wait"), BlockCause.EVENT),
    (threading("Condition.wait", "Event.wait", "Thread.start"), BlockCause.START),
    (threading("wait", "wait", "start"), BlockCause.START),
    (threading("Condition.wait", "Semaphore.acquire"), BlockCause.SEMAPHORE),
    (threading("wait", "acquire"), BlockCause.SEMAPHORE),
    (threading("Condition.wait", "Condition.wait_for", "Barrier._wait", "Barrier.wait"), BlockCause.BARRIER),
    (threading("wait", "wait_for", "_wait", "wait"), BlockCause.BARRIER),
    (threading("Thread._wait_for_tstate_lock", "Thread.join"), BlockCause.JOIN),
    (threading("_wait_for_tstate_lock", "join"), BlockCause.JOIN),
    (threading("Thread.join"), BlockCause.JOIN),
    ([(THREADING, "_shutdown")], BlockCause.JOIN),
    ([(THREADING, "Condition.wait"), (f"{LIB}queue.py", "Queue.get"), APP], BlockCause.QUEUE),
    ([(THREADING, "wait"), (f"{LIB}queue.py", "put"), APP], BlockCause.QUEUE),
    ([(f"{LIB}concurrent/futures/thread.py", "_worker"), (THREADING, "Thread.run")], BlockCause.QUEUE),
    ([(f"{LIB}concurrent/futures/thread.py", "ThreadPoolExecutor.submit"), APP], BlockCause.LOCK),
    ([(THREADING, "Condition.wait"), (f"{LIB}concurrent/futures/_base.py", "Future.result"), APP], BlockCause.FUTURE),
    ([("<frozen importlib._bootstrap>", "_ModuleLock.acquire"), APP], BlockCause.IMPORT_LOCK),
    ([("<frozen importlib._bootstrap_external>", "FileFinder.find_spec"), APP], BlockCause.IMPORT_LOCK),
    ([(f"{LIB}logging/__init__.py", "Handler.acquire"), APP], BlockCause.LOGGING_LOCK),
    ([(f"{LIB}multiprocessing/synchronize.py", "SemLock.__enter__"), APP], BlockCause.PROCESS_LOCK),
    # What it has beside those is not shared with other processes.
    ([(f"{LIB}multiprocessing/pool.py", "Pool.close"), APP], BlockCause.LOCK),
    ([("<frozen threading>", "Condition.wait"), ("<frozen threading>", "Event.wait"), APP], BlockCause.EVENT),
    ([("/srv/threading_helpers.py", "wait"), APP], BlockCause.LOCK),
]


def blocked(stacks: list[Frames], *, way: int = 0, lock: int = 0, free_threaded: bool = False) -> Process:
    """A thread that slept once with each of these stacks."""
    script = Script(python="3.14.0 free-threading build (main)" if free_threaded else "3.14.0 (main)")
    strings = sorted({text for frames in stacks for frame in frames for text in frame})
    rows = [(strings.index(name), strings.index(file), 1, 0, 0) for frames in stacks for file, name in frames]
    names = FRAME.names
    assert names is not None
    frames = np.array(rows, FRAME) if rows else np.empty(0, FRAME)
    if rows:
        frames["function"], frames["file"] = [row[0] for row in rows], [row[1] for row in rows]
    for number in range(len(stacks)):
        script.slept(100 * number, 1, 0x7000, lock, way=way).awoke(100 * number + 50, 1)
    recorded = script.events()
    recorded.events["stack"] = np.arange(len(recorded.events)) // 2
    offsets = np.concatenate(([0], np.cumsum([len(each) for each in stacks])))
    table = StackTable(frames, offsets, np.zeros(len(stacks), np.bool_), tuple(strings))
    (process,) = timeline([replace(recorded, stacks=table)]).processes
    return process


def test_by_the_frames() -> None:
    found = block_causes(blocked([frames for frames, _ in STACKS]))
    told = {number: (frames, BlockCause(found[number])) for number, (frames, _) in enumerate(STACKS)}
    assert [told[number] for number in told if told[number][1] != STACKS[number][1]] == []


@pytest.mark.parametrize(
    ("way", "lock", "free_threaded", "cause"),
    [
        (Way(0), 0, False, BlockCause.LOCK),
        (Way.PARKED | Way.WITH_ARGUMENT, 0x10, False, BlockCause.LOCK),
        (Way.PARKED | Way.WITH_ARGUMENT, 0x1A, False, BlockCause.LOCK),
        (Way.PARKED | Way.WITH_ARGUMENT, 0x1A, True, BlockCause.OBJECT_LOCK),
        (Way.PARKED | Way.WITH_ARGUMENT, 0x18, True, BlockCause.LOCK),
        (Way.PARKED, 0x10, False, BlockCause.EVENT),
        (Way.PARKED, 0x10, True, BlockCause.EVENT),
        (Way.PARKED | Way.OWN_STATE, 0x10, True, BlockCause.STOP_THE_WORLD),
        (Way.PARKED | Way.RAW, 0, True, BlockCause.OTHER_LOCK),
    ],
)
def test_by_the_kind_of_lock(way: Way, lock: int, free_threaded: bool, cause: BlockCause) -> None:
    assert block_causes(blocked([[APP]], way=way, lock=lock, free_threaded=free_threaded)).tolist() == [cause]


def test_a_frame_says_more_than_the_kind() -> None:
    waiting = blocked([threading("Thread.join"), [APP]], way=Way.PARKED, lock=0x10)
    assert block_causes(waiting).tolist() == [BlockCause.JOIN, BlockCause.EVENT]


def test_without_stacks() -> None:
    script = Script().slept(100, 1, 0x7000).awoke(150, 1)
    (process,) = timeline(script).processes
    assert block_causes(process).tolist() == [BlockCause.LOCK]


def test_names() -> None:
    assert BlockCause.STOP_THE_WORLD.label == "stop-the-world"
    assert BlockCause.LOCK not in AWAITED


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("item = tasks.get()", BlockCause.QUEUE),
        ("for item in iter(self.tasks.get, None):", BlockCause.QUEUE),
        ("for item in iter(cache.get_all, None):", BlockCause.LOCK),
        ("with lock: item = cache.get(1)", BlockCause.LOCK),
        ("lock.acquire()", BlockCause.LOCK),
    ],
)
def test_who_is_let_in_by_another_that_waited_waits_for_the_same_queue(
    line: str, cause: BlockCause, tmp_path: Path
) -> None:
    """As in a `SimpleQueue` up to 3.12: each `get` has its lock for a moment, and lets the next one in."""
    app = tmp_path / "app.py"
    app.write_text(line)
    waiting = blocked([[(str(app), "serve")], [(f"{LIB}pool.py", "connect"), (str(app), "serve")]])
    now = time.time_ns() + 10**9
    assert block_causes(waiting, Expressions(waiting, now)).tolist() == [cause, BlockCause.LOCK]

"""Who made whom wait in locks, in scenes in which that is plain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.lock_results import LockBlame
from giltrace.analysis.measure.block_causes import BlockCause, block_causes
from giltrace.analysis.measure.lock_blame import TOLD, Pieces, chain, owners
from giltrace.timeline.model import LockKind, Process
from tests.unit.block_events import Scene, library, own
from tests.unit.gil_events import MS, US
from tests.unit.lock_scenes import STACKS, TURN, joined, taking_turns

END = 20 * TURN + 100 * US


def blame(made: Process) -> tuple[LockBlame, ...]:
    return Costed(made).lock_blame


def pairs(made: Process) -> list[tuple[str, str, str, int, int]]:
    """Victim, waker, cause, ms, blocks."""
    return [
        (
            row.victim.own_function,
            row.waker.own_function if row.waker else "-",
            row.cause,
            round(row.ns / MS),
            row.blocks,
        )
        for row in blame(made)
    ]


def meanwhile(row: LockBlame) -> list[tuple[str, str, str, int]]:
    return [(one.site.own_function, one.doing, one.cause, round(one.ns / MS)) for one in row.meanwhile]


def turns(made: Process) -> list[tuple[int, int, int, int]]:
    """Block, owner, and from when to when, in ms."""
    found: Pieces = owners(made, block_causes(made).astype(np.int64))
    rows = zip(
        found.block.tolist(), found.owner.tolist(), (found.start / MS).tolist(), (found.end / MS).tolist(), strict=True
    )
    return sorted((block, owner, round(start), round(end)) for block, owner, start, end in rows)


def test_the_line_that_was_blocked_and_the_line_that_let_it_on() -> None:
    assert pairs(taking_turns().process(END)) == [("take", "give", "lock", 201, 20)]


def test_what_the_owner_did_meanwhile() -> None:
    (row,) = blame(taking_turns().process(END))
    assert meanwhile(row)[0] == ("work", "asleep", "", 192)
    (row,) = blame(taking_turns(python=True).process(END))
    assert meanwhile(row)[0] == ("take", "python", "", 198)
    (row,) = blame(taking_turns(native=True).process(END))
    assert meanwhile(row)[0] == ("work", "native", "", 192)
    (row,) = blame(taking_turns().process(END, sched=False))
    assert meanwhile(row)[0] == ("work", "off", "", 192)


def test_blocks_are_cut_where_the_lock_changed_hands() -> None:
    """Thread 3 sleeps in it throughout; 1 and 2 have it one after the other, and it is told of each for its time."""
    made = Scene(4).hold(0, MS, 0).hold(MS, 2 * MS, 3, "take")
    made.block(2 * MS, 30 * MS, 2, at="take", by=1, woken=30 * MS, wake="give")
    made.block(3 * MS, 70 * MS, 3, at="take", by=2, woken=70 * MS, wake="give")
    assert turns(made.process(80 * MS)) == [(0, 1, 2, 30), (1, 1, 3, 30), (1, 2, 30, 70)]


def test_locks_are_cut_each_by_its_own_turns() -> None:
    made = Scene(4).hold(0, MS, 0)
    made.block(2 * MS, 30 * MS, 2, lock=0, by=1).block(3 * MS, 70 * MS, 3, lock=1, by=0)
    assert turns(made.process(80 * MS)) == [(0, 1, 2, 30), (1, 0, 3, 70)]


def test_nobody_is_known_to_have_what_nobody_gave_back() -> None:
    made = Scene(2).hold(0, MS, 0).block(2 * MS, 30 * MS, 1, at="take")
    built = made.process(80 * MS)
    assert turns(built) == []
    (row,) = blame(built)
    assert row.waker is None
    assert row.meanwhile == ()


def test_what_is_awaited_has_no_owner_before_who_brings_it() -> None:
    """Two threads wait for items of a queue: each for its own, which says nothing of what the other waits for."""
    made = Scene(3, STACKS).hold(0, MS, 0, "put")
    made.block(2 * MS, 30 * MS, 1, at="get", by=0, wake="put").block(3 * MS, 70 * MS, 2, at="get", by=0, wake="put")
    built = made.process(80 * MS)
    assert turns(built) == [(0, 0, 2, 30), (1, 0, 3, 70)]
    assert pairs(built) == [("consume", "put", "queue", 95, 2)]


def test_a_chain_leads_from_who_was_blocked_by_a_blocked_thread_to_the_last() -> None:
    """3 wants what 2 has, which wants what 1 has, which sleeps."""
    made = Scene(4).hold(0, MS, 1, "read").hold(MS, 2 * MS, 2, "outer").hold(2 * MS, 3 * MS, 3, "outermost")
    made.block(2 * MS, 90 * MS, 2, at="outer", lock=0, by=1, wake="inner done")
    made.block(3 * MS, 91 * MS, 3, at="outermost", lock=1, by=2, wake="outer done")
    made.hold(89 * MS, 90 * MS, 1, "inner done").hold(90 * MS, 91 * MS, 2, "outer done")
    rows = blame(made.process(100 * MS))
    first = next(row for row in rows if row.victim.own_function == "outermost")
    links = chain(rows, first)
    assert [row.victim.own_function for row in links] == ["outermost", "outer"]
    assert meanwhile(links[0])[0] == ("outer", "lock", "lock", 87)
    assert meanwhile(links[1])[0] == ("read", "asleep", "", 87)


def test_a_chain_that_leads_round_ends() -> None:
    made = Scene(3).hold(0, MS, 0, "start")
    for thread in (1, 2):
        made.block(2 * MS, 90 * MS + thread, thread, at=f"at {thread}", lock=thread, by=3 - thread, wake="give")
    rows = blame(made.process(100 * MS))
    assert len(chain(rows, rows[0])) == 2


def test_several_locks_of_one_line_are_one_row_and_are_named() -> None:
    made = Scene(3).hold(0, MS, 0, "start")
    for at, lock in enumerate((4, 2, 4, 0)):
        made.block((at * 10 + 1) * MS, (at * 10 + 9) * MS, 1, at="take", lock=lock, by=2, wake="give")
    (row,) = blame(made.process(100 * MS))
    assert (row.locks, row.blocks, row.ns, row.max_ns) == ((1, 3, 5), 4, 32 * MS, 8 * MS)


def test_joins_come_last_however_long_they_are() -> None:
    made = joined(taking_turns())
    assert [row[2] for row in pairs(made.process(END))] == ["lock", "join"]


def test_what_wakers_did_is_told_of_the_costliest_rows() -> None:
    made = Scene(3).hold(0, MS, 0, "start")
    for at in range(TOLD + 3):
        made.block((at * 10 + 1) * MS, (at * 10 + 9) * MS - at * US, 1, at=f"at {at}", by=2, wake="give")
    rows = blame(made.process(200 * MS))
    assert [bool(row.meanwhile) and bool(row.locks) for row in rows] == [True] * TOLD + [False] * 3


def test_only_blocks_of_threads_that_are_asked_about_are_told() -> None:
    made = taking_turns().process(END)
    only = replace(made, chosen=np.array([False, True, False]))
    assert pairs(only) == [("take", "give", "lock", 100, 10)]
    assert pairs(replace(made, chosen=np.array([True, False, False]))) == []


def test_without_stacks_roles_are_left() -> None:
    (row,) = blame(taking_turns().process(END, stacks=False))
    assert (row.victim.thread, row.victim.function, row.cause) == ("worker-*", "", "lock")


def test_a_process_without_blocks_has_no_rows() -> None:
    made = Scene(1).hold(0, MS, 0, "start").process(MS)
    assert blame(made) == ()
    assert turns(made) == []


@pytest.mark.parametrize(
    ("stack", "cause"),
    [
        ([library("join"), own("main")], BlockCause.JOIN),
        ([library("Thread._wait_for_tstate_lock"), library("Thread.join"), own("main")], BlockCause.JOIN),
        ([library("wait"), library("wait"), own("main")], BlockCause.EVENT),
        ([library("Condition.wait"), library("Event.wait"), own("main")], BlockCause.EVENT),
        ([library("Condition.wait"), library("Event.wait"), library("Thread.start"), own("main")], BlockCause.START),
        ([library("Condition.wait"), own("main")], BlockCause.CONDITION),
        ([library("Condition.__enter__"), own("main")], BlockCause.LOCK),
        ([library("wait"), library("acquire"), own("main")], BlockCause.SEMAPHORE),
        ([library("wait"), library("result", "/usr/lib/python3.12/concurrent/futures/_base.py")], BlockCause.FUTURE),
        ([library("_worker", "/usr/lib/python3.12/concurrent/futures/thread.py")], BlockCause.QUEUE),
        ([library("__enter__", "<frozen importlib._bootstrap>"), own("main")], BlockCause.IMPORT_LOCK),
        (STACKS["log"], BlockCause.LOGGING_LOCK),
        ([library("__enter__", "/usr/lib/python3.12/multiprocessing/synchronize.py")], BlockCause.PROCESS_LOCK),
        ([own("main")], BlockCause.LOCK),
    ],
)
def test_what_a_thread_was_blocked_by_is_told_by_its_innermost_frames(
    stack: list[tuple[str, str, int]], cause: BlockCause
) -> None:
    made = Scene(2, {"at": stack}).hold(0, MS, 0).block(MS, 9 * MS, 1, at="at", by=0)
    assert block_causes(made.process(10 * MS)).tolist() == [cause]


@pytest.mark.parametrize(
    ("kind", "address", "owned", "cause"),
    [
        (LockKind.SEMAPHORE, 0x1000, False, BlockCause.EVENT),
        (LockKind.EVENT, 0x1000, True, BlockCause.EVENT),
        (LockKind.PARKED, 0x100A, True, BlockCause.OBJECT_LOCK),
        (LockKind.PARKED, 0x1000, True, BlockCause.LOCK),
        (LockKind.WORLD, 0x1000, True, BlockCause.STOP_THE_WORLD),
        (LockKind.RAW, 0x1000, True, BlockCause.OTHER_LOCK),
    ],
)
def test_what_kind_of_lock_it_is_tells_the_rest(kind: LockKind, address: int, owned: bool, cause: BlockCause) -> None:
    made = Scene(2, kinds={0: kind}, addresses={0: address}).hold(0, MS, 0)
    made.block(MS, 9 * MS, 1, at="at", by=0, owned=owned)
    assert block_causes(made.process(10 * MS, free_threaded=True)).tolist() == [cause]

"""The figures of the last minute: the same however the events arrive, and forgotten when they are old."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest

from giltrace.recording.events import Array, ThreadInfo
from giltrace.recording.layout import Kind, RecordFlag
from giltrace.recording.live import Update
from giltrace.recording.live_file import LiveFile, Piece
from giltrace.views.top.buckets import Buckets, split
from giltrace.views.top.kernel import ask_kernel
from giltrace.views.top.model import BUCKET_NS, MINUTE_NS, Snapshot, Sort, ThreadState
from giltrace.views.top.window import Window
from tests.unit.gil_events import MS, Script

SECOND = 1_000_000_000


class Stacks:
    """Stack n has the innermost frame "f<n>"."""

    tops = tuple(((f"f{n}", "app.py", n), (f"own{n}", "mine.py", n)) for n in range(10))

    def update(self) -> None:
        pass

    def top(self, number: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        return np.where(number > 0, number, -1).astype(np.int64)

    def stack(self, number: int) -> tuple[tuple[str, str, int], ...]:
        return (self.tops[number][0], ("main", "app.py", 99))


def live_file(number: int = 0, pid: int = 100) -> LiveFile:
    known = {"pid": pid, "cmdline": "python app.py", "python": "3.13", "note": ""}
    none = {"lost": 0, "missed": 0, "lost_stacks": 0}
    return cast(LiveFile, SimpleNamespace(number=number, start=0, stacks=Stacks(), **known, **none))


FILE = live_file()


def update(events: Array, file: LiveFile = FILE, *, ended: bool = False, pieces: tuple[Piece, ...] = ()) -> Update:
    threads = {int(t): ThreadInfo(100 + int(t), f"thread-{t}") for t in np.unique(events["thread"])}
    return Update(file, events, threads, pieces, ended)


def feed(script: Script, *cuts: int, since: int = 0) -> Window:
    """A window that got the script's events in parts, up to each of `cuts`."""
    events, window, done = script.events().events, Window(since), 0
    for cut in cuts:
        upto = int(np.searchsorted(events["time"], cut, "right"))
        window.feed([update(events[done:upto])], cut)
        done = upto
    assert done == len(events)
    return window


def figures(snapshot: Snapshot) -> list[tuple[Any, ...]]:
    rows = [
        (r.name, round(r.held, 9), round(r.waiting, 9), r.worst_ns, r.holds, r.waits, r.forced)
        for r in snapshot.threads
    ]
    return [*sorted(rows), (snapshot.held, snapshot.contended, snapshot.worst_ns, snapshot.acquires, snapshot.forced)]


def convoy(rounds: int) -> Script:
    """Thread 1 holds 8 of every 10 ms, forced by thread 2, which waits 7 of them and holds 2."""
    script = Script()
    for at in range(0, rounds * 10 * MS, 10 * MS):
        script.hold(at, at + 8 * MS, 1, forced=True)
        script.hold(at + 8 * MS, at + 10 * MS, 2, asked=at + MS)
    return script


def test_shares_are_of_the_span() -> None:
    snapshot = feed(convoy(100), SECOND).snapshot(SECOND)
    rows = {row.name: row for row in snapshot.threads}
    assert [rows["thread-1"].held, rows["thread-1"].waiting] == pytest.approx([0.8, 0.0])
    assert [rows["thread-2"].held, rows["thread-2"].waiting] == pytest.approx([0.2, 0.7])
    assert [snapshot.held, snapshot.contended, snapshot.waiting] == pytest.approx([1.0, 0.7, 0.7])
    assert snapshot.worst_ns == 7 * MS
    assert (snapshot.acquires, snapshot.forced) == (200, 100)
    assert list(snapshot.graph.held) == pytest.approx([1.0, 1.0])
    assert list(snapshot.graph.contended) == pytest.approx([0.7, 0.7])


@pytest.mark.parametrize("step", [3 * MS, 7 * MS, 10 * MS, 333 * MS])
def test_the_parts_that_events_come_in_make_no_difference(step: int) -> None:
    whole = feed(convoy(100), SECOND)
    parts = feed(convoy(100), *range(step, SECOND, step), SECOND)
    assert figures(parts.snapshot(SECOND)) == figures(whole.snapshot(SECOND))


def test_what_is_under_way_counts_already_and_only_once() -> None:
    script = Script().hold(0, 3 * SECOND, 1).hold(3 * SECOND, 4 * SECOND, 2, asked=SECOND)
    events = script.events().events
    window = Window(0)
    window.feed([update(events[events["time"] <= SECOND])], 2 * SECOND)
    rows = {row.name: row for row in window.snapshot().threads}
    assert (rows["thread-1"].held, rows["thread-1"].state) == (1.0, ThreadState.HOLDING)
    assert (rows["thread-2"].waiting, rows["thread-2"].state) == (0.5, ThreadState.WAITING)
    assert rows["thread-2"].worst_ns == SECOND
    window.feed([update(events[events["time"] > SECOND])], 4 * SECOND)
    rows = {row.name: row for row in window.snapshot().threads}
    assert (rows["thread-1"].held, rows["thread-1"].holds) == (0.75, 1)
    assert (rows["thread-2"].waiting, rows["thread-2"].waits, rows["thread-2"].worst_ns) == (0.5, 1, 2 * SECOND)


def test_a_request_that_becomes_visible_late_counts_from_its_time() -> None:
    events = Script().hold(0, 900 * MS, 1).hold(900 * MS, SECOND, 2, asked=100 * MS).events().events
    late = (events["thread"] == 2) | (events["time"] > 500 * MS)
    window = Window(0)
    window.feed([update(events[~late])], 500 * MS)
    window.feed([update(events[late])], SECOND)
    rows = {row.name: row for row in window.snapshot(SECOND).threads}
    assert rows["thread-2"].waiting == pytest.approx(0.8)
    assert rows["thread-1"].held == pytest.approx(0.9)


def test_a_release_that_turns_out_to_be_forced_is_counted() -> None:
    window = feed(Script().hold(0, MS, 1), 2 * MS)
    records = np.array([int(Kind.ACQUIRE) << 40], np.uint64)
    piece = Piece(1, 0, 0, 0, ThreadInfo(101, "thread-1"), records, late_forced=True)
    window.feed([update(Script().acquire(3 * MS, 1).events().events, pieces=(piece,))], 4 * MS)
    snapshot = window.snapshot()
    assert (snapshot.forced, snapshot.threads[0].forced) == (1, 1)


def culprits(snapshot: Snapshot) -> dict[str, int]:
    return {str(one.line): one.cost_ns for one in snapshot.culprits}


@pytest.mark.parametrize("cuts", [(20 * MS,), (4 * MS, 9 * MS, 20 * MS)])
def test_blames_the_line_that_the_first_waiter_read(cuts: tuple[int, ...]) -> None:
    script = Script().hold(0, 12 * MS, 1, forced=True).hold(12 * MS, 15 * MS, 2, asked=2 * MS)
    events = script.events().events
    events["stack"][events["kind"] == Kind.TIMEOUT] = 3
    events["stack"][events["kind"] == Kind.RELEASE] = 4
    window, done = Window(0), 0
    for cut in cuts:
        upto = int(np.searchsorted(events["time"], cut, "right"))
        window.feed([update(events[done:upto])], cut)
        done = upto
    told = culprits(window.snapshot())
    assert sum(told.values()) == 10 * MS
    # What nobody has read yet when a part ends has no line.
    assert told["f3 (app.py:3)"] >= 5 * MS
    assert set(told) <= {"f3 (app.py:3)", "f4 (app.py:4)", ""}
    assert str(window.snapshot().culprits[0].own_line) == "own3 (mine.py:3)"


def test_blames_what_waiters_saw_not_the_line_that_gave_the_gil_up() -> None:
    """It computes in 3 for 8 ms and in 2 for the rest, and gives the GIL up in 4; nobody has had to ask."""
    script = Script().hold(0, 12 * MS, 1).hold(12 * MS, 13 * MS, 2, asked=MS)
    script.records = [one for one in script.records if one[4] != Kind.TIMEOUT]
    for at in range(2, 12, 2):
        script.add(Kind.SAMPLE, at * MS, 2)
    events = script.events().events
    looks = np.flatnonzero(events["kind"] == Kind.SAMPLE)
    events["stack"][looks] = np.where(events["time"][looks] <= 8 * MS, 3, 2)
    events["stack"][events["kind"] == Kind.RELEASE] = 4
    window = Window(0)
    window.feed([update(events)], 20 * MS)
    assert culprits(window.snapshot()) == {"f3 (app.py:3)": 8 * MS, "f2 (app.py:2)": 3 * MS}


def test_the_line_of_a_thread_is_the_newest_known() -> None:
    events = Script().hold(0, MS, 1).hold(2 * MS, 3 * MS, 1).hold(4 * MS, 5 * MS, 2).events().events
    events["stack"][events["kind"] == Kind.RELEASE] = [1, 2, 5]
    window = Window(0)
    window.feed([update(events)], 10 * MS)
    assert {row.name: str(row.line) for row in window.snapshot().threads} == {
        "thread-1": "f2 (app.py:2)",
        "thread-2": "f5 (app.py:5)",
    }
    assert {row.name: str(row.own_line) for row in window.snapshot().threads} == {
        "thread-1": "own2 (mine.py:2)",
        "thread-2": "own5 (mine.py:5)",
    }


def test_forgets_what_is_older_than_a_minute_and_who_ended() -> None:
    window = feed(Script().hold(0, SECOND, 1).end(SECOND, 1).hold(2 * SECOND, 3 * SECOND, 2), 4 * SECOND)
    ended = {row.name: row.state for row in window.snapshot().threads}
    assert ended == {"thread-1": ThreadState.ENDED, "thread-2": ThreadState.OFF}
    window.feed([], MINUTE_NS + 5 * SECOND)
    snapshot = window.snapshot()
    assert [row.name for row in snapshot.threads] == ["thread-2"]
    assert (snapshot.held, snapshot.acquires) == (0.0, 0)
    assert len(snapshot.graph.held) == MINUTE_NS // BUCKET_NS


def test_a_process_that_was_killed_holds_no_longer() -> None:
    window = Window(0)
    window.feed([update(Script().acquire(0, 1).events().events)], SECOND)
    window.feed([update(Script().events().events[:0], ended=True)], 2 * SECOND)
    window.feed([], 4 * SECOND)
    (row,) = window.snapshot().threads
    assert (row.state, row.held) == (ThreadState.ENDED, 0.5)


def test_a_process_that_has_ended_counts_whole() -> None:
    window = Window(0)
    window.feed([update(Script().hold(0, 3 * SECOND, 1).events().events, ended=True)], SECOND)
    window.feed([], 4 * SECOND)
    assert window.snapshot().threads[0].held == pytest.approx(0.75)


def test_several_processes_and_one_of_them() -> None:
    window = Window(0)
    window.feed(
        [
            update(Script().hold(0, SECOND, 1).events().events, FILE),
            update(Script().hold(0, SECOND // 2, 1).events().events, live_file(1, 200)),
        ],
        SECOND,
    )
    both, one = window.snapshot(), window.snapshot(pid=200)
    assert (both.gils, both.held, len(both.threads)) == (2, 1.0, 2)
    assert (one.gils, one.held, [row.pid for row in one.threads]) == (1, 0.5, [200])


def test_sorts_and_leaves_out_the_last() -> None:
    window = feed(convoy(100), SECOND)
    assert [row.name for row in window.snapshot(sort=Sort.HELD).threads] == ["thread-1", "thread-2"]
    assert [row.name for row in window.snapshot(sort=Sort.WAITING).threads] == ["thread-2", "thread-1"]
    short = window.snapshot(sort=Sort.NAME, limit=1)
    assert ([row.name for row in short.threads], short.more_threads) == (["thread-1"], 1)


def test_looks_at_one_thread() -> None:
    window = feed(convoy(100), SECOND)
    row = window.snapshot().threads[0]
    detail = window.detail(row.ident, SECOND)
    assert detail is not None
    assert detail.row == row
    assert list(detail.graph.contended) == pytest.approx([0.7, 0.7])
    assert sum(one.cost_ns for one in detail.culprits) == 700 * MS
    assert window.detail(12345, SECOND) is None


def test_the_kernel_is_asked_for_threads_off_the_gil() -> None:
    window = Window(0)
    window.feed([update(Script().hold(0, MS, 1).acquire(2 * MS, 2, core=3).events().events)], 3 * MS)
    rows = {row.tid: row for row in window.snapshot(ask=lambda pid, tid: (ThreadState.BLOCKED, 7)).threads}
    assert (rows[101].state, rows[101].core) == (ThreadState.BLOCKED, 7)
    assert (rows[102].state, rows[102].core) == (ThreadState.HOLDING, 7)
    assert {row.core for row in window.snapshot().threads} >= {3}


def test_who_sleeps_in_a_lock_is_told_so_until_it_is_up_or_gone() -> None:
    window = Window(0)
    asleep = Script().hold(0, MS, 1).hold(MS, 2 * MS, 2).add(Kind.SLEPT, 3 * MS, 1).add(Kind.SLEPT, 3 * MS, 2)
    window.feed([update(asleep.events().events)], 4 * MS)

    def states() -> dict[int, ThreadState]:
        return {row.tid: row.state for row in window.snapshot(ask=lambda pid, tid: (ThreadState.BLOCKED, 7)).threads}

    assert states() == {101: ThreadState.LOCKED, 102: ThreadState.LOCKED}
    window.feed([update(Script().add(Kind.AWOKE, 5 * MS, 1).hold(6 * MS, 7 * MS, 1).events().events)], 8 * MS)
    assert states() == {101: ThreadState.BLOCKED, 102: ThreadState.LOCKED}
    window.snapshot(ask=lambda pid, tid: None)
    assert {row.state for row in window.snapshot(ask=lambda pid, tid: None).threads} == {ThreadState.ENDED}


def test_what_the_kernel_has_no_more_has_ended() -> None:
    window = Window(0)
    window.feed([update(Script().hold(0, MS, 1).acquire(2 * MS, 2).events().events)], 3 * MS)
    never = {row.tid: row.state for row in window.snapshot(ask=lambda pid, tid: None).threads}
    assert never == {101: ThreadState.OFF, 102: ThreadState.HOLDING}
    window.snapshot(ask=lambda pid, tid: (ThreadState.BLOCKED, 7))
    gone = [(row.state, row.core) for row in window.snapshot(ask=lambda pid, tid: None).threads]
    assert gone == [(ThreadState.ENDED, -1)] * 2
    window.feed([], MINUTE_NS + 5 * SECOND)
    assert [row.tid for row in window.snapshot(ask=lambda pid, tid: None).threads] == [102]


def test_a_thread_that_nobody_has_waited_for_yet_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        told = ask_kernel(process.pid, process.pid)
        assert told is not None
        assert told[0] is ThreadState.ENDED
    assert ask_kernel(process.pid, process.pid) is None


def test_intervals_are_cut_at_buckets() -> None:
    row, bucket, length = split(np.array([5, 20, 30]), np.array([25, 20, 31]), 10)
    assert list(zip(row.tolist(), bucket.tolist(), length.tolist(), strict=True)) == [
        (0, 0, 5),
        (0, 1, 10),
        (0, 2, 5),
        (1, 2, 0),
        (2, 3, 1),
    ]


def test_buckets_add_up_and_keep_the_largest() -> None:
    table = Buckets(("sum",), ("most",))
    for _ in range(40):
        table.add(np.array([1, 1, 2]), np.array([7, 8, 7]), sum=np.array([1, 2, 3]), most=np.array([4, 9, 5]))
    assert table.total().tolist() == [(1, 7, 160, 5), (1, 8, 80, 9)]
    table.drop_before(2)
    assert table.total().tolist() == [(2, 7, 120, 5)]


def test_forced_releases_are_told_from_others() -> None:
    script = Script().hold(0, MS, 1, forced=True).hold(2 * MS, 3 * MS, 1)
    assert RecordFlag.FORCED in script.events().events["flags"]
    assert feed(script, 4 * MS).snapshot().forced == 1

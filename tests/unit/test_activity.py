"""What threads did at each instant: states and blocks as one layer, and where they were without the GIL."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.lock_results import Whereabouts
from giltrace.analysis.measure.activity import Activity, Doing, activity, during
from giltrace.analysis.measure.block_causes import block_causes
from giltrace.analysis.measure.explained import explain
from giltrace.analysis.measure.sites import Sites
from giltrace.timeline.axis import LifeAxis
from giltrace.timeline.model import LockKind, Process
from tests.unit.block_events import Scene, library, own
from tests.unit.gil_events import MS

Row = tuple[int, int, str, str]


def told(made: Process, thread: int) -> list[Row]:
    """What a thread did, in ms: from, to, what, and the innermost function there."""
    found = activity(made)
    mine = [at for at in range(len(found.thread)) if found.thread[at] == thread]
    return [
        (
            round(found.start[at] / MS),
            round(found.until(np.array([at]))[0] / MS),
            Doing(int(found.doing[at])).label,
            where(made, found, at),
        )
        for at in mine
    ]


def where(made: Process, found: Activity, at: int) -> str:
    if made.stacks is None or found.stack[at] < 0:
        return ""
    table = made.stacks.table
    innermost: str = table.strings[table.frames["function"][table.offsets[found.stack[at]]]]
    return innermost


def whereabouts(made: Process) -> list[tuple[str, str, str, int]]:
    """The rows of the table: function of the own line, what was done there, cause, ms."""
    rows = explain(made, Sites(made), activity(made), block_causes(made).astype(np.int64))
    return [(row.site.own_function, row.doing, row.cause, round(row.ns / MS)) for row in rows]


def scene() -> Scene:
    """Thread 1 computes, runs native code, reads for 20 ms, sleeps in a lock for 30 ms, and lacks a core for 10."""
    made = Scene(2).hold(0, 10 * MS, 0, "main").hold(10 * MS, 20 * MS, 1, "native")
    made.run(20 * MS, 30 * MS, 1).hold(30 * MS, 31 * MS, 1, "read")
    made.hold(51 * MS, 52 * MS, 1, "take").block(52 * MS, 82 * MS, 1, at="take", by=0, wake="give")
    return made.hold(82 * MS, 83 * MS, 1, "last").run(83 * MS, 85 * MS, 1).ready(85 * MS, 1).run(95 * MS, 100 * MS, 1)


def test_states_and_blocks_make_one_layer() -> None:
    assert told(scene().process(100 * MS), 1) == [
        (0, 10, "asleep", ""),
        (10, 20, "python", "native"),
        (20, 30, "native", "native"),
        (30, 31, "python", "read"),
        (31, 51, "asleep", "read"),
        (51, 52, "python", "take"),
        (52, 82, "lock", "take"),
        (82, 83, "python", "last"),
        (83, 85, "native", "last"),
        (85, 95, "no-core", "last"),
        (95, 100, "native", "last"),
    ]


def test_without_context_switches_what_is_no_block_is_just_off_the_gil() -> None:
    found = told(scene().process(100 * MS, sched=False), 1)
    assert [row for row in found if row[2] == "lock"] == [(52, 82, "lock", "take")]
    assert (31, 51, "off", "read") in found
    assert {row[2] for row in found} == {"python", "off", "lock"}


def test_a_wait_for_the_gil_is_one_with_and_without_context_switches() -> None:
    made = Scene(2).hold(0, 50 * MS, 0, "main")
    made.script.request(20 * MS, 1)
    made.hold(50 * MS, 60 * MS, 1, "work")
    for sched in (True, False):
        built = made.process(60 * MS, sched=sched)
        assert (20, 50, "waiting", "") in told(built, 1)
        assert built.stacks is not None
        where_it_waited = replace(built.stacks, wait=np.full(len(built.waits), 1, np.int32))
        assert (20, 50, "waiting", "work") in told(replace(built, stacks=where_it_waited), 1)


def test_a_block_begins_and_ends_within_states() -> None:
    """It runs a little before it sleeps and after it was woken up, and lacks a core in between: only that is not the
    lock's doing."""
    made = Scene(2).hold(0, 10 * MS, 1, "take").run(10 * MS, 12 * MS, 1).run(40 * MS, 44 * MS, 1)
    made.block(11 * MS, 43 * MS, 1, at="take", by=0)
    made.kernel.switches[3] = (12 * MS, 100, 101, 1, 0, 0)
    assert [row[:3] for row in told(made.process(50 * MS), 1)] == [
        (0, 10, "python"),
        (10, 11, "native"),
        (11, 12, "lock"),
        (12, 40, "lock"),
        (40, 43, "lock"),
        (43, 44, "native"),
        (44, 50, "asleep"),
    ]


def test_who_is_woken_up_without_a_core_is_not_blocked_any_more() -> None:
    made = Scene(2).hold(0, 10 * MS, 1, "take").run(20 * MS, 21 * MS, 1).ready(21 * MS, 1).run(31 * MS, 32 * MS, 1)
    made.block(10 * MS, 32 * MS, 1, at="take", by=0)
    found = [row[:3] for row in told(made.process(32 * MS), 1)]
    assert (21, 31, "no-core") in found
    assert (10, 20, "lock") in found


def test_without_a_gil_who_runs_runs_and_blocks_lie_over_all_time() -> None:
    made = Scene(2).hold(0, MS, 0, "start").run(10 * MS, 40 * MS, 1).run(60 * MS, 100 * MS, 1)
    made.block(40 * MS, 60 * MS, 1, at="append", by=0).kinds[0] = LockKind.PARKED
    assert told(made.process(100 * MS, free_threaded=True), 1) == [
        (0, 10, "asleep", ""),
        (10, 40, "python", ""),
        (40, 60, "lock", "append"),
        (60, 100, "python", ""),
    ]


@pytest.mark.parametrize("sched", [True, False])
@pytest.mark.parametrize("blocks", [True, False])
def test_stretches_tile_each_thread_s_life(sched: bool, blocks: bool) -> None:
    made = scene().process(100 * MS, sched=sched)
    made = made if blocks else replace(made, blocks=made.blocks[:0])
    found = activity(made)
    for number, thread in enumerate(made.threads):
        mine = np.flatnonzero(found.thread == number)
        assert found.start[mine].tolist() == [thread.start, *found.until(mine).tolist()[:-1]]
        assert found.until(mine)[-1] == thread.end


def test_a_process_without_records_has_no_stretches_but_its_threads_lives() -> None:
    made = Scene(1).process(10 * MS, sched=False)
    assert np.unique(activity(made).doing).tolist() in ([], [Doing.OFF])


def test_time_in_intervals_that_overlap_is_told_of_the_stretches_it_lies_in() -> None:
    made = scene().process(100 * MS)
    found, axis = activity(made), LifeAxis.of_threads(made.threads)
    thread, start, end = np.array([1, 1, 0, 1]), np.array([0, 15, 3, 15]) * MS, np.array([100, 35, 4, 35]) * MS
    row, spent = during(found, axis, thread, start, end)
    ends = found.until(np.arange(len(found.thread))).tolist()
    expected = [
        sum(
            max(0, min(ends[at], last) - max(int(found.start[at]), first))
            for who, first, last in zip(thread.tolist(), start.tolist(), end.tolist(), strict=True)
            if who == found.thread[at]
        )
        for at in range(len(found.thread))
    ]
    assert row.tolist() == [at for at, ns in enumerate(expected) if ns]
    assert spent.tolist() == [ns for ns in expected if ns]


def test_the_table_of_where_threads_were_without_the_gil() -> None:
    rows = [row for row in whereabouts(scene().process(100 * MS)) if row[0] not in ("", "main")]
    assert rows == [
        ("take", "lock", "lock", 30),
        ("read", "asleep", "", 20),
        ("native", "native", "", 10),
        ("last", "no-core", "", 10),
        ("last", "native", "", 7),
    ]


def test_waits_of_the_standard_library_have_their_cause_and_the_user_s_line() -> None:
    made = Scene(2, stacks={"get": [library("wait"), library("get", "/usr/lib/python3.12/queue.py"), own("consume")]})
    made.hold(0, 10 * MS, 1, "get").block(10 * MS, 60 * MS, 1, at="get", by=0)
    assert ("consume", "lock", "queue", 50) in whereabouts(made.process(60 * MS))


def test_only_threads_that_are_asked_about_are_in_the_table() -> None:
    made = scene().process(100 * MS)
    one = replace(made, chosen=np.array([True, False]))
    assert {row[0] for row in whereabouts(one)} == {"main"}


def test_lines_are_added_up_over_threads_of_a_role() -> None:
    made = Scene(3)
    for thread in (1, 2):
        made.hold(thread * MS, (thread + 1) * MS, thread, "read")
    built = made.process(50 * MS)
    rows = explain(built, Sites(built), activity(built), np.empty(0, np.int64))
    read = [row for row in rows if row.site.function == "read"]
    assert [type(row) for row in read] == [Whereabouts]
    assert round(read[0].ns / MS) == 48 + 47

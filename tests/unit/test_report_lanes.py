"""The lanes of the page: as fine as the budget allows, true at every tick, and with the stacks of what they show."""

from __future__ import annotations

import base64
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.replay.critical_path import CriticalPath
from giltrace.reports.html import blocks as blocks_of
from giltrace.reports.html import lanes as lanes_of
from giltrace.reports.html import mixes as mixes_of
from giltrace.reports.html import stacks as stacks_of
from giltrace.reports.html.blocks import Blocks
from giltrace.reports.html.lanes import FINEST, FREE, IN_LOCK, PER_GIL, Lane, Lanes
from giltrace.reports.html.mixes import PARTS, find_mixes
from giltrace.reports.html.stacks import FIRST, LEFT_OUT, NONE, stack_names
from giltrace.timeline.model import STATE, Process, State
from tests.synthetic import make_process
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, US
from tests.unit.lock_scenes import joined, taking_turns

STACKS = [
    [("count", "/srv/convoy.py", 28), ("run", "/usr/lib/python3.11/threading.py", 982)],
    [("steps", "/srv/convoy.py", 35)],
    [(f"deep_{at}", "/srv/deep.py", at) for at in range(30)],
]


def lanes(process: Process) -> tuple[list[Lane], list[Lane]]:
    make = Lanes(process, process.start, process.end, find_mixes(process).of_wait)
    everybody = np.arange(len(process.threads))
    return [make.gil(gil, everybody) for gil in range(process.gils)], make.threads(everybody.tolist())


def lane(*stretches: tuple[int, int, int]) -> Lane:
    """A lane of (length, value, stack)."""
    length, value, stack = (np.array(column) for column in zip(*stretches, strict=True))
    return Lane(np.cumsum(length), value.astype(np.uint16), stack.astype(np.int32), np.zeros(len(length), np.uint16))


def at(one: Lane, time: int) -> tuple[int, int]:
    stretch = int(np.searchsorted(one.ends, time, "right"))
    return int(one.value[stretch]), int(one.stack[stretch])


@pytest.mark.parametrize("budget", [100, 1_000, 7_000])
def test_the_resolution_is_the_finest_that_fits(budget: int) -> None:
    gils, threads = lanes(make_process(threads=6, holds=5_000))

    def stretches(tick: int) -> int:
        return sum(len(lanes_of.thinned(one, tick).ends) for one in gils + threads)

    tick = lanes_of.resolution(gils + threads, budget)
    assert stretches(tick) <= budget < stretches(tick // 2)


def test_what_fits_is_shown_at_the_finest_resolution() -> None:
    gils, threads = lanes(make_process())
    assert lanes_of.resolution(gils + threads) == FINEST


def test_a_tick_shows_what_went_on_at_its_first_instant() -> None:
    gils, threads = lanes(make_process(threads=3, holds=500))
    tick = 3_000_000
    for one in gils + threads:
        thin = lanes_of.thinned(one, tick)
        assert all(at(thin, time)[0] == at(one, time * tick)[0] for time in range(int(thin.ends[-1])))


def test_neighbours_that_show_the_same_are_joined_and_those_with_another_stack_are_not() -> None:
    thin = lanes_of.thinned(lane((30, 1, 7), (5, 2, 8), (90, 1, 9), (3, 1, 4), (36, 1, 9), (36, 1, 3)), 10)
    assert list(zip(thin.ends.tolist(), thin.value.tolist(), thin.stack.tolist(), strict=True)) == [
        (3, 1, 7),
        (4, 2, 8),
        (17, 1, 9),
        (20, 1, 3),
    ]


@pytest.mark.parametrize("sched", [True, False])
def test_holds_and_waits_have_their_stacks(sched: bool) -> None:
    process = with_stacks(make_process(threads=3, holds=60), STACKS, hold={0: 0, 1: 0, 2: 1}, wait={2: 2})
    if sched:
        process = replace(process, has_sched=True, states=states(process))
    gils, threads = lanes(process)
    for hold in process.holds[process.holds["end"] > process.holds["start"]]:
        time, thread = int(hold["start"]) - process.start, int(hold["thread"])
        assert at(gils[0], time) == (thread, 0 if thread < 2 else 1)
        assert at(threads[thread], time) == (int(State.HOLDING_RUNNING), 0 if thread < 2 else 1)
    for wait in process.waits:
        time, thread = int(wait["start"]) - process.start, int(wait["thread"])
        assert at(threads[thread], time) == (int(State.WAITING), 2 if thread == 2 else -1)
    assert FREE in gils[0].value


def states(process: Process) -> np.ndarray:
    """Holds and waits as states, and off-blocked in between."""
    rows: list[tuple[int, int, int, int]] = []
    for number, thread in enumerate(process.threads):
        spans = [
            (int(row["start"]), int(row["end"]), state)
            for table, state in ((process.holds, State.HOLDING_RUNNING), (process.waits, State.WAITING))
            for row in table[table["thread"] == number]
        ]
        now = thread.start
        for start, end, state in sorted(spans):
            rows += [(now, start, number, int(State.OFF_BLOCKED))] * (start > now) + [(start, end, number, int(state))]
            now = end
        rows.append((now, thread.end, number, int(State.OFF_BLOCKED)))
    return np.array(rows, STATE)


@pytest.mark.parametrize("sched", [True, False])
def test_blocks_have_their_cause_their_stack_and_who_ended_them(sched: bool) -> None:
    process = joined(taking_turns()).process(200 * MS + 100 * US, sched=sched)
    # A thread of which nothing is known but its holds begins with the first of them.
    lives = [thread.start for thread in process.threads]
    kept = np.flatnonzero(process.blocks["start"] >= np.array(lives)[process.blocks["thread"]])
    assert len(kept) >= 20
    assert process.stacks is not None
    figures = Costed(process)
    blocks = Blocks(figures, process.start)
    _, bare = lanes(process)
    made = [blocks.over(one, thread) for thread, one in enumerate(bare)]
    for row in kept:
        block, stack = process.blocks[row], process.stacks.block[row]
        one, time = made[int(block["thread"])], int(block["end"] + block["start"]) // 2 - process.start
        cause = int(figures.block_causes[row])
        assert at(one, time) == (IN_LOCK + PER_GIL * cause, int(stack))
        wake = one.mix[int(np.searchsorted(one.ends, time, "right"))]
        assert blocks.wakes[wake - 1]["by"] == process.threads[int(block["waker"])].name
    for thread, (before, after) in enumerate(zip(bare, made, strict=True)):
        assert before.ends[-1] == after.ends[-1]
        blocked = after.value % PER_GIL == IN_LOCK
        mine = process.blocks[kept][process.blocks["thread"][kept] == thread]
        ready = 50 * US * len(mine)
        assert abs(int(after.lengths[blocked].sum()) - int((mine["end"] - mine["start"]).sum())) <= ready
        held = [one.lengths[one.value % PER_GIL <= int(State.WAITING)].sum() for one in (before, after)]
        assert held[0] == held[1]


def test_where_the_gil_was_given_up_is_the_stack_of_what_follows() -> None:
    process = taking_turns().process(200 * MS)
    assert process.stacks is not None
    blocks = Blocks(Costed(process), process.start)
    _, bare = lanes(process)
    value, stack = at(blocks.over(bare[1], 1), 5 * MS)
    assert value == int(State.OFF_BLOCKED)
    table = process.stacks.table
    assert table.strings[table.frames["function"][table.offsets[stack]]] == "work"


def test_the_longest_stretches_of_a_path_are_on_the_lanes_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    column = np.array
    path = CriticalPath(column([0, 1, 2, 0]), column([100, 200, 250, 900]), column([200, 250, 900, 1000]))
    lane_of = column([1, 0, -1])
    assert blocks_of.on_lanes(path, lane_of, 100, 10) == [[1, 0, 10], [0, 10, 15], [1, 80, 90]]
    monkeypatch.setattr(blocks_of, "MOST_ON_PATH", 3)
    assert blocks_of.on_lanes(path, lane_of, 100, 10) == [[1, 0, 10], [1, 80, 90]]


def test_a_wait_says_for_which_gil() -> None:
    process = make_process(threads=6, holds=200, gils=2)
    _, threads = lanes(process)
    for wait in process.waits:
        value, _ = at(threads[int(wait["thread"])], int(wait["start"]) - process.start)
        assert value == int(State.WAITING) + PER_GIL * int(wait["gil"])


def test_the_parts_of_waits_add_up_to_what_they_were_lost_to() -> None:
    process = make_process(threads=5, holds=3_000)
    mixes = find_mixes(process)
    told = np.array(mixes.told)
    assert set(told.sum(axis=1).tolist()) == {PARTS[0]}
    length = (process.waits["end"] - process.waits["start"]).astype(np.float64)
    shown = (length @ (told[mixes.of_wait - 1] / PARTS[0])) / length.sum()
    truth = Costed(process).costs.ns.sum(axis=0) / length.sum()
    assert shown == pytest.approx(truth, abs=0.005)
    assert np.count_nonzero(truth > 0.01) > 1
    _, threads = lanes(process)
    wait = process.waits[1000]
    stretch = np.searchsorted(threads[int(wait["thread"])].ends, int(wait["start"]) - process.start, "right")
    assert threads[int(wait["thread"])].mix[stretch] == mixes.of_wait[1000]


def test_more_mixes_than_numbers_are_told_in_fewer_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mixes_of, "_MOST", 12)
    told = np.array(find_mixes(make_process(threads=5, holds=3_000)).told)
    assert len(told) < 12
    assert {int(told.sum(axis=1).max())} <= set(PARTS[1:])


def test_without_waits_there_are_no_mixes() -> None:
    none = find_mixes(make_process(holds=0))
    assert (len(none.of_wait), none.told) == (0, [])


def unpacked(sent: dict[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    count, columns = sent["count"], zlib.decompress(base64.b64decode(sent["columns"]))
    cut = [
        np.frombuffer(columns, kind, count, count * at) for kind, at in (("<u4", 0), ("<u2", 4), ("<u2", 6), ("<u2", 8))
    ]
    assert not cut[3].any()
    return cut[0], cut[1], cut[2]


def test_a_page_has_each_frame_once_and_the_stacks_with_the_most_time() -> None:
    process = with_stacks(make_process(), STACKS)
    # 10 ns of stack 0, 50 of 2, 1 of 1, and the rest without any.
    shown = lane((10, 0, 0), (50, 1, 2), (1, 0, 1), (20, 1, -1))
    names, numbers = stack_names(process.stacks, [shown], most=2)
    assert numbers.tolist() == [FIRST + 1, LEFT_OUT, FIRST, NONE]
    deep, count = ([names["frames"][frame] for frame in stack] for stack in names["stacks"])
    assert count == [["count", "/srv/convoy.py", 28], ["run", "/usr/lib/python3.11/threading.py", 982]]
    assert deep == [[f"deep_{at}", "/srv/deep.py", at] for at in range(30)]
    assert [names["frames"][at] for at in names["own"]] == [deep[0], count[0]]
    assert [names["frames"][at] for at in names["library_frames"]] == [count[1]]
    assert names["own_stacks"] == []
    assert len(set(map(tuple, names["frames"]))) == len(names["frames"]) == 32
    lengths, values, stacks = unpacked(lanes_of.packed(shown, numbers))
    assert lengths.tolist() == [10, 50, 1, 20]
    assert values.tolist() == [0, 1, 0, 1]
    assert stacks.tolist() == [FIRST + 1, FIRST, LEFT_OUT, NONE]


def test_a_stack_that_is_cut_keeps_the_line_it_is_told_by(monkeypatch: pytest.MonkeyPatch) -> None:
    library = [(f"inner_{at}", "/usr/lib/python3.11/json/decoder.py", at) for at in range(1, 9)]
    own = [("mine", "/srv/app.py", 3), ("main", "/srv/app.py", 9)]
    process = with_stacks(make_process(), [library + own, library[:2]], truncated=[1])
    monkeypatch.setattr(stacks_of, "MOST_FRAMES", 4)
    names, _ = stack_names(process.stacks, [lane((9, 0, 0), (3, 0, 1))])
    first, second = ([names["frames"][at][0] if at >= 0 else "..." for at in stack] for stack in names["stacks"])
    assert first == ["inner_1", "inner_2", "inner_3", "inner_4", "...", "mine"]
    assert second == ["inner_1", "inner_2", "..."]
    assert [at >= 0 and names["frames"][at][0] for at in names["own"]] == ["mine", False]


def test_without_stacks_there_are_no_names() -> None:
    names, numbers = stack_names(None, [lane((10, 0, -1))])
    assert names == {"frames": [], "library_frames": [], "stacks": [], "own": [], "own_stacks": []}
    assert numbers.tolist() == [NONE]

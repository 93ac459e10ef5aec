"""What holders did: holds cut up by samples, holds without samples, and the hold that a wait lost most to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.measure.blame import find_blame
from giltrace.analysis.measure.stretches import Source, main_stacks, sourced_stacks, stretches
from giltrace.recording.layout import Kind
from giltrace.timeline.blocks import Blocks
from giltrace.timeline.holds import Usage
from giltrace.timeline.model import BLOCK, GATHERED, HELD_LOCK, LOCK, SAMPLE, Process, Stacks
from giltrace.timeline.stacks import attribute
from tests.unit.analysis_stacks import stack_table
from tests.unit.gil_events import MS, Script, process, timeline

WAITS, ENDS, ONE, TWO, THREE = range(5)
TABLE = stack_table([[(name, "app.py", line)] for line, name in enumerate(["waits", "ends", "one", "two", "three"], 1)])

NO_BLOCKS = Blocks(
    np.empty(0, BLOCK), np.empty(0, LOCK), np.empty(0, HELD_LOCK), np.empty(0, np.int32), np.empty(0, np.int32)
)


def holding(*lengths: int) -> Process:
    """Thread 0 has holds of these lengths in ms, 1 ms apart; thread 1 waits all the time and holds at the end."""
    script, time = Script().acquire(0, 0).request(0, 1), 0
    for length in lengths:
        script.acquire(time, 0) if time else None
        time += length * MS
        script.release(time, 0)
        time += MS
    return process(script.acquire(time, 1).release(time + MS, 1))


def sampled(made: Process, *samples: tuple[float, int], ends: dict[int, int] | None = None) -> Process:
    """Give it samples (time in ms, stack); each hold of thread 0 begins and ends at ENDS but where `ends` says."""
    rows = np.zeros(len(samples), SAMPLE)
    rows["time"] = [int(time * MS) + made.start for time, _ in samples]
    rows["thread"] = 1
    end = np.full(len(made.holds), ENDS, np.int32)
    for hold, stack in (ends or {}).items():
        end[hold] = stack
    begin = np.full(len(made.holds), ENDS, np.int32)
    wait = np.full(len(made.waits), WAITS, np.int32)
    asked = np.full(len(made.switch_requests), -1, np.int32)
    seen = np.array([stack for _, stack in samples], np.int32)
    return replace(made, samples=rows, stacks=Stacks(TABLE, begin, end, wait, asked, seen))


def told(made: Process) -> list[tuple[int, float, float, int, Source]]:
    """The stretches: hold, start and end in ms, stack, source."""
    found = stretches(made)
    assert (found.holds["thread"] == made.holds["thread"][found.of]).all()
    start, end = ((found.holds[edge] - made.start) / MS for edge in ("start", "end"))
    source = [Source(one) for one in found.source.tolist()]
    return list(zip(found.of.tolist(), start.tolist(), end.tolist(), found.stack.tolist(), source, strict=True))


def test_who_was_not_seen_to_give_the_gil_up_told_where_it_was_as_it_asked() -> None:
    """One waits for good, one comes to a hold. Where a thread gave the GIL up is told of its next wait, as before."""
    script = Script().acquire(0, 0).request(1, 1).request(2, 2).release(5, 0).acquire(5, 1).request(6, 0).release(9, 1)
    records = script.acquire(9, 0).release(10, 0).events()
    stack = {(Kind.REQUEST, 1): ONE, (Kind.REQUEST, 2): TWO, (Kind.RELEASE, 0): ENDS, (Kind.RELEASE, 1): THREE}
    whose = zip(records.events["kind"].tolist(), records.events["thread"].tolist(), strict=True)
    records.events["stack"] = [stack.get((Kind(kind), thread), -1) for kind, thread in whose]
    made = timeline([replace(records, stacks=TABLE)]).processes[0]
    assert made.stacks is not None
    assert dict(zip(made.waits["thread"].tolist(), made.stacks.wait.tolist(), strict=True)) == {0: ENDS, 1: ONE, 2: TWO}
    assert made.stacks.hold_begin.tolist() == [-1, ONE, ENDS]
    assert made.stacks.hold_end.tolist() == [ENDS, THREE, ENDS]


def test_a_sample_whose_chain_of_frames_was_torn_is_none() -> None:
    """It ends at a generator, which gave its value while the chain was read."""
    base, leaf, generator = ("<module>", "app.py", 9), ("leaf", "app.py", 1), ("generator", "app.py", 2)
    table = stack_table(
        [[base], [leaf, generator, base], [leaf, generator], [generator], [leaf, ("callback", "c.py", 1)]]
    )
    made = holding(1)
    ends, numbers = np.zeros(len(made.holds), np.int32), np.arange(-1, 5, dtype=np.int32)
    waiting = np.full(len(made.waits), -1, np.int32)
    of_holders = numbers, np.zeros(6, SAMPLE), numbers
    usage = Usage(made.holds, made.waits, made.switch_requests, (), ends, *of_holders, waiting)
    found = attribute(table, usage, np.empty(0, GATHERED), NO_BLOCKS)
    assert found.sample.tolist() == found.request.tolist() == [-1, 0, 1, -1, -1, 4]
    # What a thread is known to have begun with is no part of anything.
    begun = usage._replace(hold_stacks=np.full(len(made.holds), 2, np.int32))
    assert attribute(table, begun, np.empty(0, GATHERED), NO_BLOCKS).sample.tolist() == [-1, 0, 1, 2, 3, 4]
    cut = replace(table, truncated=np.ones(5, np.bool_))
    assert attribute(cut, usage, np.empty(0, GATHERED), NO_BLOCKS).sample.tolist() == numbers.tolist()


def test_samples_share_a_long_hold_half_way_between_them() -> None:
    made = sampled(holding(10), (1, ONE), (3, TWO), (8, TWO), (9, THREE))
    assert told(made)[:4] == [
        (0, 0, 2, ONE, Source.SAMPLE),
        (0, 2, 5.5, TWO, Source.SAMPLE),
        (0, 5.5, 8.5, TWO, Source.SAMPLE),
        (0, 8.5, 10, THREE, Source.SAMPLE),
    ]
    assert main_stacks(made)[0] == TWO


def test_without_samples_it_is_the_line_that_gave_the_gil_up() -> None:
    made = sampled(holding(3, 4))
    assert told(made)[:2] == [(0, 0, 3, ENDS, Source.RELEASE), (1, 4, 8, ENDS, Source.RELEASE)]
    bare = replace(made, stacks=None)
    assert {row[3:] for row in told(bare)} == {(-1, Source.UNKNOWN)}


def test_short_holds_share_in_the_samples_of_like_holds() -> None:
    # The holds 0 to 3 end alike, hold 4 does not; two of the first were sampled, early the one and late the other.
    made = sampled(holding(2, 2, 2, 2, 2), (0.5, ONE), (10.5, TWO), ends={4: THREE, 5: WAITS})
    rows = told(made)
    assert sorted(row[3:] for row in rows[:4]) == [(ONE, Source.ALIKE)] * 2 + [(TWO, Source.ALIKE)] * 2
    assert rows[4][3:] == (THREE, Source.RELEASE)


def test_holds_of_any_stretch_of_time_share_in_all_samples() -> None:
    """Who waits changes in the course of a program: early holds must not get the early samples."""
    made = sampled(holding(*[2] * 40), (0.5, ONE), (1.5, TWO), ends={40: WAITS})
    stacks = main_stacks(made).tolist()
    assert all(stacks[at : at + 8].count(ONE) in (3, 4, 5) for at in range(2, 32))


def test_holds_that_take_longer_share_in_the_samples_of_such() -> None:
    made, seen = holding(*[2, 6] * 40), []
    for at, hold in enumerate(made.holds[:80]):
        if at % 4 < 2:  # half of either were seen, 1 ms into them
            seen.append(((int(hold["start"]) - made.start) / MS + 1, TWO if at % 2 else ONE))
    stacks = main_stacks(sampled(made, *seen, ends={80: WAITS}))
    assert stacks[:80].tolist() == [ONE, TWO] * 40


def test_a_sample_counts_for_the_time_that_lies_nearest_to_it() -> None:
    # The first millisecond of each was seen once, the last three five times.
    seen = [(12 * 4 + 0.5, ONE), *((12 * at + 3.0, TWO) for at in range(5))]
    made = sampled(holding(*[4, 6] * 10), *sorted(seen), ends={20: WAITS})
    lines = [row[3] for row in told(made)[:20]]
    # Nearest to 0.5 ms, not to 3.0 ms, are 1.75 of 4 and of 6 ms.
    assert lines.count(ONE) == pytest.approx(20 * 1.75 / 5, abs=1)  # whole holds are dealt out


def test_time_in_which_nobody_waited_does_not_count() -> None:
    script = Script()
    for turn in range(10):  # holds of 10 ms; somebody waits from the 8th on
        start = 20 * turn * MS
        script.acquire(start, 0).request(start + 8 * MS, 1).release(start + 10 * MS, 0)
        script.acquire(start + 10 * MS, 1).release(start + 11 * MS, 1)
    seen = [(20 * at + (8.5 if at % 2 else 9.5), ONE if at % 2 else TWO) for at in range(4)]
    made = sampled(process(script), *seen, ends=dict.fromkeys(range(1, 20, 2), WAITS))
    mine = [row[3] for row in told(made) if row[0] % 2 == 0]
    assert (mine.count(ONE), mine.count(TWO)) == (5, 5)


def test_a_sample_that_met_nobody_is_nobodys() -> None:
    made = sampled(holding(2, 2), (2.5, ONE))
    assert [row[3] for row in told(made)[:2]] == [ENDS, ENDS]


def test_blame_goes_to_the_lines_that_were_seen() -> None:
    made = sampled(holding(10), (1, ONE), (3, TWO), (7, TWO), (9, TWO))
    tables = find_blame(made)
    assert [(row.site.function, row.ns) for row in tables.culprits] == [("two", 8 * MS), ("one", 2 * MS)]
    assert (tables.samples, tables.sampled_ns) == (4, 10 * MS)
    assert [(row.culprit.function, row.waits, row.max_ns) for row in tables.pairs] == [
        ("two", 1, 8 * MS),
        ("one", 1, 2 * MS),
    ]


def test_what_was_seen_is_told_from_where_the_gil_was_let_go_or_taken() -> None:
    script = Script()
    for turn, thread in enumerate((0, 1, 0, 1, 0)):
        script.hold(10 * turn * MS, (10 * turn + 5) * MS, thread)
    made = sampled(process(script), (1, ONE), ends={0: THREE, 1: WAITS, 2: THREE, 3: -1, 4: -1})
    assert made.stacks is not None
    begins = np.array([-1, -1, -1, WAITS, -1], np.int32)
    stack, source = sourced_stacks(replace(made, stacks=replace(made.stacks, hold_begin=begins)))
    assert list(zip(stack.tolist(), source.tolist(), strict=True)) == [
        (ONE, Source.SAMPLE),
        (WAITS, Source.RELEASE),
        (ONE, Source.ALIKE),
        (WAITS, Source.ACQUIRE),
        (-1, Source.UNKNOWN),
    ]

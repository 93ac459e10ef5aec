"""What a thread of a pool computed: its stacks have none of the user's code any more when it gives the GIL up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.measure.activity import Doing, activity
from giltrace.analysis.measure.own_work import sampled_line, work_stacks
from giltrace.analysis.measure.sampled import _MOST_IN_ALL, _instants, own_lines, sampled_lines
from giltrace.analysis.measure.sites import Sites
from giltrace.recording.events import SPAN, Spans
from giltrace.timeline.model import Process
from tests.unit.block_events import Scene, library
from tests.unit.gil_events import MS, PID, US
from tests.unit.lock_scenes import TURN

WORKER = "_worker (/usr/lib/python3.12/threading.py:80)"
RESULT = "notify (/usr/lib/python3.12/threading.py:100)"
CALC = "calc (/srv/app.py:7)"
OTHER = "other (/srv/app.py:9)"
STACKS = {"hand on": [library("notify"), library("_worker")]}
Seen = tuple[int, int, str]


def chain(turns: int = 20) -> Scene:
    """Threads 1 and 2 have a lock in turns while they wait for what thread 3 computes for them."""
    made = Scene(4, STACKS).hold(0, 20 * US, 0, "start")
    for turn in range(turns):
        owner, begin = 1 + turn % 2, turn * TURN + 50 * US
        end = begin + TURN
        made.hold(begin, begin + 20 * US, owner, "wait for it")
        made.hold(begin + 50 * US, end - 200 * US, 3, "hand on")
        made.block(begin + 20 * US, end - 150 * US, owner, at="wait for it", lock=1, by=3, wake="hand on", owned=False)
        made.hold(end - 150 * US, end - 50 * US, owner, "wait for it")
        since = 100 * US if turn == 0 else begin - 50 * US
        made.block(since, end, 3 - owner, at="take", by=owner, woken=end - 100 * US, wake="give")
    return made


def sampled(process: Process, seen: Sequence[Seen], thread: int = 3, error_ns: int = 0) -> Process:
    """The same, with what a sampler saw of a thread under its outermost function: from, to, and the line."""
    names = [WORKER, RESULT, CALC, OTHER]
    tid = 100 + thread if thread else PID
    rows = [(min(one[0] for one in seen), max(one[1] for one in seen), tid, 0, 0)]
    rows += [(start, end, tid, names.index(name), 1) for start, end, name in seen]
    spans = Spans("py-spy", process.pid, True, tuple(names), np.array(rows, SPAN), clock_error_ns=error_ns)
    return replace(process, spans=(spans,))


def every_turn(*parts: Seen, turns: range = range(20)) -> list[Seen]:
    """Parts of each turn, from and to in ns from its begin."""
    return [(turn * TURN + start, turn * TURN + end, name) for turn in turns for start, end, name in parts]


def computed(process: Process) -> dict[str, int]:
    """For how long (ms) thread 3 ran Python at which line."""
    found, total = activity(process), Counter[str]()
    mine = np.flatnonzero((found.thread == 3) & (found.doing == Doing.PYTHON))
    classes = Sites(process).classify(found.thread[mine], found.stack[mine])
    for site, ns in zip(classes.of_row.tolist(), found.length(mine).tolist(), strict=True):
        total[classes.sites[site].where] += ns
    return {where: round(ns / MS) for where, ns in total.items()}


@pytest.fixture
def made() -> Process:
    return chain().process(20 * TURN + 100 * US)


def test_unsampled_work_has_no_line(made: Process) -> None:
    assert computed(made) == {"notify (threading.py:100)": 195}
    found = judge(made)
    assert found.kind == "lock-bound"
    assert "The work at a line that is not known, before notify (threading.py:100), is done with" in found.advice


def test_sampled_work_is_told_by_the_users_line(made: Process) -> None:
    seen = sampled(made, every_turn((MS, 9 * MS, CALC)))
    assert computed(seen) == {"calc (app.py:7)": 195}
    assert "The work at calc (app.py:7) is done with the lock taken" in judge(seen).advice


def test_each_hold_shares_in_the_nearest_sample_of_like_ones(made: Process) -> None:
    """A sampler looks at few of them: one sample in five turns, of another line in the second half."""
    rows = every_turn((5 * MS, 6 * MS, CALC), turns=range(0, 10, 5))
    rows += every_turn((5 * MS, 6 * MS, OTHER), turns=range(10, 20, 5))
    found = computed(sampled(made, rows))
    assert set(found) >= {"calc (app.py:7)", "other (app.py:9)"}


def test_work_of_a_library_stays_a_librarys(made: Process) -> None:
    assert computed(sampled(made, every_turn((MS, 9 * MS, RESULT)))) == {"notify (threading.py:100)": 195}


def test_holds_shorter_than_the_clocks_differ_are_left_alone(made: Process) -> None:
    seen = sampled(made, every_turn((MS, 9 * MS, CALC)), error_ns=20 * MS)
    assert computed(seen) == {"notify (threading.py:100)": 195}


def test_what_another_thread_did_is_not_taken(made: Process) -> None:
    seen = sampled(made, every_turn((MS, 9 * MS, CALC)), thread=0)
    assert computed(seen) == {"notify (threading.py:100)": 195}


def test_the_release_before_tells_where_nobody_looked(made: Process) -> None:
    assert made.stacks is not None
    begun = np.where(made.holds["thread"] == 3, number_of(made, "take"), made.stacks.hold_begin).astype(np.int32)
    assert computed(replace(made, stacks=replace(made.stacks, hold_begin=begun))) == {"take (app.py:1)": 195}


def number_of(process: Process, function: str) -> int:
    """The stack in which there is this function."""
    assert process.stacks is not None
    table = process.stacks.table
    frame = table.frames["function"].tolist().index(table.strings.index(function))
    return int(np.searchsorted(table.offsets, frame, "right")) - 1


def test_numbers_of_stacks_stay_what_they_are(made: Process) -> None:
    seen = sampled(made, every_turn((MS, 9 * MS, CALC)))
    assert seen.stacks is not None
    assert sampled_line(seen, 0) is None
    numbers = np.unique(work_stacks(seen)).tolist()
    assert [sampled_line(seen, number) for number in numbers if number >= len(seen.stacks.table)] == [
        ("calc", "/srv/app.py", 7)
    ]


def test_what_is_seen_for_long_counts_for_long(made: Process) -> None:
    seen = sampled(made, [(0, MS, RESULT), (MS, 2 * MS, CALC), (2 * MS, 22 * MS, OTHER)])
    found = sampled_lines(seen)
    assert [int((found.line == number).sum()) for number in range(2)] == [1, 20]
    assert own_lines(seen) == (("calc", "/srv/app.py", 7), ("other", "/srv/app.py", 9))


def test_looks_are_bounded_however_long_the_same_was_seen() -> None:
    edges = np.sort(np.concatenate([np.arange(0, 10**10, 10**6), np.arange(10**10, 10**14, 10**9)]))
    found = _instants(edges)
    assert set(edges.tolist()) <= set(found.tolist())
    assert len(found) <= len(edges) + _MOST_IN_ALL


def test_what_the_user_says_is_his_is_his(made: Process) -> None:
    assert made.stacks is not None
    own = replace(made, stacks=replace(made.stacks, table=replace(made.stacks.table, own=("/usr/lib",))))
    found = own_lines(sampled(own, every_turn((MS, 9 * MS, CALC))))
    assert {function for function, _, _ in found} == {"_worker", "notify"}

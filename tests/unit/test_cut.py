"""A timeline that is cut: what reaches into the stretches is whole and explained as before, the rest is counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from giltrace.analysis.measure.sites import Sites
from giltrace.exporters._places import Places
from giltrace.exporters._relations import relate
from giltrace.exporters.perfetto import trace as perfetto
from giltrace.exporters.perfetto.cut import SLICE
from giltrace.timeline.cut import cut
from giltrace.timeline.model import Array, Process, Timeline
from giltrace.views.gil_tables import GilTraceProcessor
from giltrace.views.trace_processor import unavailable
from tests.synthetic import START, make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks

MS = 1_000_000
STRETCHES = [(START + 100 * MS, START + 150 * MS), (START + 300 * MS, START + 310 * MS)]
WHY_NOT = unavailable()


def whole() -> Timeline:
    return make_timeline(make_process(holds=400, spans=30), make_process(900, gils=2, seed=5), others=3)


def reaching(table: Array) -> Array:
    """Brute force: the rows that share an instant with a stretch."""
    kept = [
        row
        for row in table
        if any(row["start"] < end and max(row["end"], row["start"] + 1) > start for start, end in STRETCHES)
    ]
    return np.array(kept, table.dtype)


def without(table: Array, field: str) -> list[tuple[object, ...]]:
    names = [name for name in table.dtype.names or () if name != field]
    return [tuple(row) for row in table[names].tolist()]


def test_waits_runs_and_spans_that_reach_into_a_stretch_are_kept_whole() -> None:
    before = whole()
    after = cut(before, STRETCHES)
    for old, new in zip(before.processes, after.processes, strict=True):
        assert without(new.waits, "hold") == without(reaching(old.waits), "hold")
        assert new.runs.tolist() == reaching(old.runs).tolist()
        for was, now in zip(old.spans, new.spans, strict=True):
            assert now.spans.tolist() == reaching(was.spans).tolist()
        assert {*reaching(old.holds).tolist()} <= {*new.holds.tolist()} <= {*old.holds.tolist()}
        assert 0 < len(new.holds) < len(old.holds)
    assert after.other_runs.tolist() == reaching(before.other_runs).tolist()


def kept_rows(old: Process, new: Process, table: str) -> list[int]:
    keys = [(row["start"], row["thread"], row["gil"]) for row in getattr(old, table)]
    return [keys.index((row["start"], row["thread"], row["gil"])) for row in getattr(new, table)]


def test_each_wait_has_the_hold_and_the_culprit_that_it_had() -> None:
    before = whole()
    for old, new in zip(before.processes, cut(before, STRETCHES).processes, strict=True):
        was, now = relate(old), relate(new)
        waits, holds = kept_rows(old, new, "waits"), kept_rows(old, new, "holds")
        assert [holds[hold] for hold in new.waits["hold"]] == old.waits["hold"][waits].tolist()
        before_cut, after_cut = Places(old, was).culprits, Places(new, now).culprits
        assert after_cut.thread.tolist() == before_cut.thread[waits].tolist()
        assert after_cut.ns.tolist() == before_cut.ns[waits].tolist()
        arrived = new.waits["hold"]
        assert now.arrow_in[arrived].tolist() == was.arrow_in[old.waits["hold"][waits]].tolist()


def test_each_stack_is_the_one_that_it_was() -> None:
    process = make_process(holds=400)
    asked = {number: number % 3 for number in range(len(process.switch_requests))}
    stacks = [[(f"f{number}", "a.py", number)] for number in range(8)]
    holding, waiting = {thread: 3 + thread for thread in range(4)}, {1: 4, 2: 5}
    before = make_timeline(with_stacks(process, stacks, hold=holding, wait=waiting, request=asked))
    (old,), (new,) = before.processes, cut(before, STRETCHES).processes
    waits, holds = kept_rows(old, new, "waits"), kept_rows(old, new, "holds")
    assert Sites(new).wait_stacks().tolist() == Sites(old).wait_stacks()[waits].tolist()
    assert Sites(new).hold_stacks().tolist() == Sites(old).hold_stacks()[holds].tolist()


def test_what_was_left_out_is_counted_also_when_cut_again() -> None:
    before = whole()
    once = cut(before, STRETCHES)
    twice = cut(once, STRETCHES[:1])
    for after in (once, twice):
        assert after.cut is not None
        for table in ("holds", "waits"):
            left = sum(len(getattr(process, table)) for process in after.processes)
            assert getattr(after.cut, table) + left == sum(len(getattr(process, table)) for process in before.processes)
        assert after.recorded == before.recorded
    assert once.cut is not None
    assert once.cut.kept == tuple(STRETCHES)


@pytest.mark.parametrize(
    ("stretches", "kept"),
    [
        ([], []),
        ([(0, 10)], []),
        ([(START + 5, START + 5)], []),
        ([(START + 20, START + 30), (START + 10, START + 20)], [(START + 10, START + 30)]),
        ([(START + 10, START + 90), (START + 20, START + 30)], [(START + 10, START + 90)]),
        ([(0, START + 10)], [(START, START + 10)]),
    ],
)
def test_stretches_are_put_in_order(stretches: list[tuple[int, int]], kept: list[tuple[int, int]]) -> None:
    found = cut(make_timeline(make_process()), stretches).cut
    assert found is not None
    assert found.kept == tuple(kept)


def test_all_of_it_is_the_same_and_none_of_it_is_valid() -> None:
    before = whole()
    everything, nothing = cut(before, [before.recorded]), cut(before, [])
    for old, new, none in zip(before.processes, everything.processes, nothing.processes, strict=True):
        for table in ("holds", "waits", "switch_requests"):
            assert getattr(new, table).tolist() == getattr(old, table).tolist()
            assert len(getattr(none, table)) == 0


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_its_trace_is_valid_and_shows_what_is_missing(tmp_path: Path) -> None:
    before = whole()
    for name, timeline in (("whole", before), ("cut", cut(before, STRETCHES)), ("none", cut(before, []))):
        perfetto.write(timeline, tmp_path / name)
    traces = {name: GilTraceProcessor(tmp_path / name) for name in ("whole", "cut", "none")}
    gaps = f"select ts, ts + dur as end_ts from slice where name = '{SLICE}' order by ts"
    first, last = before.recorded
    edges = [first, *(edge for stretch in STRETCHES for edge in stretch), last]
    assert traces["whole"].run(gaps).rows == []
    assert traces["cut"].run(gaps).rows == [list(pair) for pair in zip(edges[::2], edges[1::2], strict=True)]
    assert traces["none"].run(gaps).rows == [[first, last]]
    for trace in traces.values():
        assert trace.query("select * from stats where severity in ('error', 'data_loss') and value > 0") == []
        assert trace.run("select start_ts, end_ts from trace_bounds").rows == [[first, last]]


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_no_hand_off_is_made_up_across_what_is_missing(tmp_path: Path) -> None:
    before = whole()
    found = {}
    for name, timeline in (("whole", before), ("cut", cut(before, STRETCHES))):
        perfetto.write(timeline, tmp_path / name)
        rows = GilTraceProcessor(tmp_path / name).run("select ts, dur, tid, to_tid, waited from gil_handoffs").rows
        found[name] = {tuple(row) for row in rows}
    assert 0 < len(found["cut"]) < len(found["whole"])
    assert found["cut"] <= found["whole"]


@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_no_thread_waits_for_a_core_in_what_is_missing(tmp_path: Path) -> None:
    before = whole()
    runnable = "select t.tid, s.ts, s.dur from thread_state s join thread t using (utid) where state = 'R'"
    found = {}
    for name, timeline in (("whole", before), ("cut", cut(before, STRETCHES))):
        perfetto.write(timeline, tmp_path / name)
        found[name] = {tuple(row) for row in GilTraceProcessor(tmp_path / name).run(runnable).rows}
    assert 0 < len(found["cut"]) < len(found["whole"])
    assert found["cut"] <= found["whole"]

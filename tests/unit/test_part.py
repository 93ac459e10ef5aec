"""A window of a timeline, for figures: cut at its edges, flagged there, and as sound as the whole."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from giltrace.analysis.measure import usage
from giltrace.analysis.report import analyse
from giltrace.timeline.invariants import check
from giltrace.timeline.model import Flag, Process, State, Timeline
from giltrace.timeline.part import window
from tests.synthetic import START, make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, PID, Kernel, Script, rows, timeline


def contended() -> Timeline:
    """Thread 0 holds for 100 ms although thread 1 asks, and thread 2 lives from 40 to 60 ms only."""
    script = (
        Script(tids=(PID, 101))
        .acquire(0, 0)
        .request(10 * MS, 1)
        .timeout(15 * MS, 1, us=5000)
        .timeout(50 * MS, 1, us=5000)
    )
    script.release(100 * MS, 0, forced=True).acquire(100 * MS, 1).release(120 * MS, 1)
    kernel = Kernel(names={102: "short"}).run(0, 130 * MS, PID).run(100 * MS, 130 * MS, 101, 1)
    kernel.born(40 * MS, 102).run(40 * MS, 60 * MS, 102, 1, preempted=True).ended(60 * MS, 102)
    return timeline(script, kernel.ended(130 * MS, PID).ended(130 * MS, 101), end=130 * MS)


def only(timeline: Timeline) -> Process:
    (process,) = timeline.processes
    return process


def random_timeline(seed: int) -> Timeline:
    """Six threads that take turns at random, some of them without an end on record."""
    random, script, kernel = np.random.default_rng(seed), Script(tids=range(100, 106)), Kernel()
    at = 0
    for _ in range(120):
        thread, asked = int(random.integers(6)), at - int(random.integers(0, 40))
        end = at + int(random.integers(0, 60))
        if max(asked, 0) >= max([time for time, _, one, *_ in script.records if one == thread], default=0):
            script.hold(at, end, thread, asked=max(asked, 0))
        else:
            script.acquire(at, thread).release(end, thread)
        if end > at:
            kernel.run(at, end, 100 + thread, thread % 2)
        at = end + int(random.integers(1, 20))
    return timeline(script, kernel, end=at)


def test_what_reaches_out_is_cut_and_flagged() -> None:
    made = only(window(contended(), 20 * MS, 110 * MS))
    assert (made.start, made.end) == (20 * MS, 110 * MS)
    assert rows(made.holds, "start", "end", "thread", "flags") == [
        (20 * MS, 100 * MS, 0, Flag.FORCED | Flag.PARTIAL_START),
        (100 * MS, 110 * MS, 1, Flag.PARTIAL_END),
    ]
    assert rows(made.waits, "start", "end", "hold", "flags") == [(20 * MS, 100 * MS, 1, Flag.PARTIAL_START)]
    inner = only(window(contended(), 20 * MS, 30 * MS))
    assert rows(inner.holds, "start", "end", "flags") == [(20 * MS, 30 * MS, Flag.PARTIAL_START | Flag.PARTIAL_END)]
    assert rows(inner.waits, "start", "end", "hold") == [(20 * MS, 30 * MS, -1)]


def test_threads_that_do_not_live_there_fall_away_and_lives_are_clipped() -> None:
    early, middle = only(window(contended(), 0, 30 * MS)), only(window(contended(), 50 * MS, 90 * MS))
    assert [one.tid for one in early.threads] == [PID, 101]
    assert [(one.tid, one.start, one.end) for one in middle.threads] == [
        (PID, 50 * MS, 90 * MS),
        (101, 50 * MS, 90 * MS),
        (102, 50 * MS, 60 * MS),
    ]
    assert rows(middle.runs[middle.runs["thread"] == 2], "start", "end", "preempted") == [(50 * MS, 60 * MS, 1)]
    cut_off = only(window(contended(), 50 * MS, 55 * MS))
    assert rows(cut_off.runs[cut_off.runs["thread"] == 2], "start", "end", "preempted") == [(50 * MS, 55 * MS, 0)]


def test_a_request_that_is_not_heeded_yet_stands() -> None:
    made = window(contended(), 60 * MS, 90 * MS)
    assert rows(only(made).switch_requests, "time", "thread") == [(60 * MS + 1, 1)]
    assert usage.overstays(only(made), MS).length.tolist() == [30 * MS - 1]
    (told,) = analyse(made).processes
    assert told.wait_decomposition_ns.holder_c_ns == pytest.approx(30 * MS, abs=10)
    assert told.verdict.kind == "hog"
    assert len(only(window(contended(), 101 * MS, 110 * MS)).switch_requests) == 0


@pytest.mark.parametrize("seed", range(20))
def test_each_window_keeps_the_promises_and_windows_add_up(seed: int) -> None:
    whole = random_timeline(seed)
    assert check(only(whole)) == ()
    edges = [0, *sorted(np.random.default_rng(seed).integers(1, whole.end, 4).tolist()), whole.end]
    parts = [window(whole, *pair) for pair in pairwise(edges) if pair[0] < pair[1]]
    for part in parts:
        for process in part.processes:
            assert check(process) == ()
            analyse(part)
    for table in ("holds", "waits", "runs", "states"):
        told = sum(int(usage.lengths(getattr(one, table)).sum()) for part in parts for one in part.processes)
        assert told == int(usage.lengths(getattr(only(whole), table)).sum())
    assert only(whole).has_sched
    assert any((one.states["state"] == State.WAITING).any() for part in parts for one in part.processes)


def test_the_whole_is_the_same_and_its_begin_is_no_edge() -> None:
    before = make_timeline(make_process(holds=400, spans=30), make_process(900, gils=2, seed=5), others=3)
    after = window(before, before.start, before.end)
    for old, new in zip(before.processes, after.processes, strict=True):
        for table in ("holds", "waits", "switch_requests", "runs"):
            assert getattr(new, table).tolist() == getattr(old, table).tolist()
        for was, now in zip(old.spans, new.spans, strict=True):
            assert now.spans.tolist() == was.spans.tolist()
    assert after.other_tasks == before.other_tasks


def test_stacks_follow_their_rows_and_spans_are_cut() -> None:
    process = make_process(holds=400, spans=30)
    stacks = [[(f"f{number}", "a.py", number)] for number in range(8)]
    process = with_stacks(process, stacks, hold={thread: thread for thread in range(4)}, wait={1: 4, 2: 5})
    start, end = START + 100 * MS, START + 150 * MS
    made = only(window(make_timeline(process), start, end))
    assert made.stacks is not None
    assert made.stacks.hold_end.tolist() == made.holds["thread"].tolist()
    assert made.stacks.wait.tolist() == [{1: 4, 2: 5}.get(one, -1) for one in made.waits["thread"].tolist()]
    assert len(made.stacks.request) == len(made.switch_requests)
    for spans in made.spans:
        assert len(spans.spans)
        assert spans.spans["start"].min() >= start
        assert spans.spans["end"].max() <= end


def test_processes_elsewhere_fall_away_and_what_is_of_an_end_is_not_told_before_it() -> None:
    built = contended()
    gone = replace(only(built), became="sort", overwritten=7, left=True)
    inner = only(window(replace(built, processes=(gone,)), 10 * MS, 50 * MS))
    assert (inner.became, inner.overwritten, inner.left) == ("", 0, False)
    assert window(built, 200 * MS, 300 * MS).processes == ()


def test_what_ended_with_a_part_is_told() -> None:
    """The process, if the window reaches so far; else the window, and for good."""
    whole = contended()
    assert only(window(whole, 20 * MS, 130 * MS)).end_of == "process"
    cut = window(whole, 20 * MS, 110 * MS)
    assert only(cut).end_of == "window"
    assert only(window(cut, 30 * MS, 110 * MS)).end_of == "window"
    outlived = replace(whole, processes=(replace(only(whole), end_of="recording"),))
    assert only(window(outlived, 20 * MS, 130 * MS)).end_of == "recording"
    told = [analyse(one).processes[0].end_of for one in (whole, cut, outlived)]
    assert told == ["process", "window", "recording"]

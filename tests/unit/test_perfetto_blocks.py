"""Blocks in a Perfetto trace: every one is found again on its thread, with its lock and its waker, and an arrow."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.replay.critical_path import critical_path
from giltrace.exporters.perfetto import slices as slice_module
from giltrace.exporters.perfetto import trace as perfetto
from giltrace.exporters.perfetto.coarse import BLOCKED as MOSTLY_BLOCKED
from giltrace.exporters.perfetto.coarse import HOLDS, Coarse
from giltrace.exporters.perfetto.colours import GREEN, RED, hue_and_lightness
from giltrace.exporters.perfetto.size import at_least, at_most
from giltrace.exporters.perfetto.steps import Grid
from giltrace.timeline.axis import union
from giltrace.timeline.cut import cut
from giltrace.timeline.model import BlockEnd, LockKind, Process, Thread, Timeline
from giltrace.timeline.part import window
from giltrace.views.trace_processor import TraceProcessor, unavailable
from tests.made_blocks import BLOCKED, WAKING, causes, with_blocks
from tests.synthetic import START, make_process, make_timeline

_WHY_NOT = unavailable()
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))
MS = 1_000_000


def without_gil(process: Process) -> Process:
    """As on a free-threaded build: no holds and no waits, but the blocks; a waker is nowhere else."""
    assert process.stacks is not None
    none = np.empty(0, np.int32)
    stacks = replace(process.stacks, hold_begin=none, hold_end=none, wait=none, request=none)
    empty = {name: getattr(process, name)[:0] for name in ("holds", "waits", "switch_requests")}
    return replace(process, free_threaded=True, stacks=stacks, **empty)


def within_a_hold() -> Process:
    """Threads that sleep in a lock and keep the GIL: as long as they have it, and a ns less."""
    process = with_blocks(make_process(holds=40))
    blocks = process.blocks[:2].copy()
    for at, hold in enumerate(process.holds[[5, 7]]):
        blocks[at]["start"], blocks[at]["end"] = int(hold["start"]), int(hold["end"]) - at
        blocks[at]["thread"], blocks[at]["woken"] = hold["thread"], int(hold["start"]) + 10
        blocks[at]["waker"], blocks[at]["ended"] = (int(hold["thread"]) + 1) % 4, BlockEnd.WOKEN
        blocks[at]["owned"] = True
    assert process.stacks is not None
    stacks = replace(process.stacks, block=process.stacks.block[:2], wake=process.stacks.wake[:2])
    return replace(process, blocks=blocks, stacks=stacks)


CASES: dict[str, Timeline] = {
    "one process": make_timeline(with_blocks(make_process())),
    "several processes": make_timeline(*(with_blocks(make_process(100 * at, seed=at)) for at in (1, 2, 3))),
    "two GILs": make_timeline(with_blocks(make_process(threads=6, gils=2))),
    "no GIL": make_timeline(replace(without_gil(with_blocks(make_process())), gils=0)),
    "a GIL that is not used": make_timeline(without_gil(with_blocks(make_process()))),
    "within holds": make_timeline(within_a_hold()),
    "no stacks": make_timeline(replace(with_blocks(make_process()), stacks=None)),
}


def load(timeline: Timeline, **options: object) -> TraceProcessor:
    file = io.BytesIO()
    perfetto.stream(timeline, file, **options)  # type: ignore[arg-type]
    trace = TraceProcessor(file.getvalue())
    assert trace.query("select name, value from stats where severity in ('error', 'data_loss') and value > 0") == []
    return trace


SLICES = """
select s.id, s.ts, s.dur, s.depth, s.name, t.tid, p.pid, k.name as track,
  extract_arg(s.arg_set_id, 'debug.lock') as lock, extract_arg(s.arg_set_id, 'debug.ended') as ended,
  extract_arg(s.arg_set_id, 'debug.waker') as waker, extract_arg(s.arg_set_id, 'debug.waker tid') as waker_tid,
  extract_arg(s.arg_set_id, 'debug.stack') as stack, extract_arg(s.arg_set_id, 'debug.own line') as own_line,
  extract_arg(s.arg_set_id, 'debug.waker stack') as waker_stack,
  extract_arg(s.arg_set_id, 'debug.waker own line') as waker_own_line,
  extract_arg(s.arg_set_id, 'debug.wake-up (ns)') as wake_up,
  extract_arg(s.arg_set_id, 'correlation_id') as colour
from slice s join thread_track k on k.id = s.track_id join thread t using (utid) join process p using (upid)
where s.category = 'block' and s.name glob 'blocked: *'
order by s.ts, t.tid
"""


@pytest.mark.parametrize("piece", [1 << 15, 7], ids=["one piece", "pieces of 7"])
@pytest.mark.parametrize("case", CASES)
def test_every_block_is_found_again(case: str, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_module, "PIECE", piece)
    rows = load(CASES[case]).query(SLICES)
    columns = ("ts", "dur", "name", "tid", "pid", "lock", "ended", "waker", "waker_tid", "wake_up")
    want: Counter[tuple[object, ...]] = Counter()
    for process in CASES[case].processes:
        told = causes(process) if process.stacks is not None else ["lock"] * len(process.blocks)
        for block, cause in zip(process.blocks, told, strict=True):
            waker = process.threads[block["waker"]] if block["waker"] >= 0 else None
            want[
                int(block["start"]),
                int(block["end"] - block["start"]),
                f"blocked: {cause}",
                process.threads[block["thread"]].tid,
                process.pid,
                f"Lock #{block['lock'] + 1}",
                BlockEnd(block["ended"]).label,
                waker.name if waker else None,
                waker.tid if waker else None,
                int(block["end"] - block["woken"]) if waker else None,
            ] += 1
    assert want
    assert Counter(tuple(row[name] for name in columns) for row in rows) == want
    assert {row["depth"] for row in rows} == ({1} if case == "within holds" else {0})


@pytest.mark.parametrize("case", CASES)
def test_holds_and_waits_are_as_they_are_without(case: str) -> None:
    asked = "select ts, dur, depth, name from slice where category = 'gil' and dur > 0 order by ts, dur, name, depth"
    bare = [replace(one, blocks=one.blocks[:0], stacks=None) for one in CASES[case].processes]
    assert load(CASES[case]).query(asked) == load(replace(CASES[case], processes=tuple(bare))).query(asked)


def test_a_block_says_the_lines_of_both() -> None:
    rows = {(row["name"], row["waker_stack"]): row for row in load(CASES["one process"]).query(SLICES)}
    (row,) = (row for (name, waker), row in rows.items() if name == "blocked: queue" and waker is not None)
    (_, stack) = BLOCKED[1]
    assert row["stack"] == " < ".join(f"{function} ({file}:{line})" for function, file, line in stack)
    assert row["own_line"] == "consume (/srv/app.py:20)"
    assert row["waker_stack"] == " < ".join(f"{function} ({file}:{line})" for function, file, line in WAKING[1])
    assert row["waker_own_line"] == "produce (/srv/app.py:44)"
    # Where the thread stood in its own code, the stack says it.
    assert {row["own_line"] for row in rows.values() if row["name"] == "blocked: lock"} == {None}


@pytest.mark.parametrize("case", CASES)
def test_an_arrow_goes_from_the_waker_to_the_end(case: str) -> None:
    sql = """
        select a.ts, a.name, ta.tid, b.ts as to_ts, b.name as to_name, tb.tid as to_tid
        from flow join slice a on slice_out = a.id join slice b on slice_in = b.id
        join thread_track ka on ka.id = a.track_id join thread ta on ta.utid = ka.utid
        join thread_track kb on kb.id = b.track_id join thread tb on tb.utid = kb.utid
        where a.category = 'block'
    """
    want: Counter[tuple[object, ...]] = Counter()
    for process in CASES[case].processes:
        for block in process.blocks[process.blocks["waker"] >= 0]:
            thread, waker = (process.threads[block[name]] for name in ("thread", "waker"))
            leaves = (int(block["woken"]), f"wakes {thread.name}", waker.tid)
            ends = (int(block["end"]), f"woken by {waker.name}", thread.tid)
            want[leaves + ends] += 1
    assert want
    assert Counter(tuple(row.values()) for row in load(CASES[case]).query(sql)) == want


def test_a_thread_without_the_gil_has_a_track_for_its_blocks() -> None:
    tracks = {row["track"] for row in load(CASES["no GIL"]).query(SLICES)}
    assert tracks == {"blocks of io-worker"}
    assert {row["track"] for row in load(CASES["one process"]).query(SLICES)} == {"GIL of io-worker"}


def test_blocks_have_a_colour_of_their_own_paler_where_they_are_awaited() -> None:
    seen = {row["name"]: hue_and_lightness(str(row["colour"])) for row in load(CASES["one process"]).query(SLICES)}
    assert seen.keys() == {f"blocked: {cause}" for cause, _ in BLOCKED}
    for hue, _ in seen.values():
        assert all(min(abs(hue - other), 360 - abs(hue - other)) > 40 for other, _ in (GREEN, RED))
    assert seen["blocked: lock"][1] + 10 < min(light for name, (_, light) in seen.items() if name != "blocked: lock")


@pytest.mark.parametrize("case", CASES)
def test_the_size_is_between_its_bounds(case: str) -> None:
    file = io.BytesIO()
    perfetto.stream(CASES[case], file)
    assert at_least(CASES[case]) <= len(file.getvalue()) <= at_most(CASES[case])


# Parts, and what is thinned.


def test_a_cut_keeps_the_blocks_that_reach_into_it_whole() -> None:
    timeline = CASES["one process"]
    middle = int(timeline.processes[0].blocks["start"][10])
    rows = load(cut(timeline, [(middle, middle + 1)])).query(SLICES)
    blocks = timeline.processes[0].blocks
    kept = blocks[(blocks["start"] <= middle) & (blocks["end"] > middle)]
    assert [(row["ts"], row["dur"]) for row in rows] == [(int(b["start"]), int(b["end"] - b["start"])) for b in kept]
    assert len(kept) > 0


def test_a_window_ends_blocks_at_its_edges() -> None:
    timeline = CASES["one process"]
    blocks = timeline.processes[0].blocks
    block = blocks[blocks["waker"] >= 0][4]
    end = int(block["start"] + block["woken"]) // 2
    rows = load(window(timeline, int(block["start"]) - 1, end)).query(SLICES)
    (row,) = (row for row in rows if row["ts"] == int(block["start"]))
    assert (row["dur"], row["ended"], row["waker"]) == (end - int(block["start"]), "open", None)


def lock_bound(count: int = 9000) -> Timeline:
    """Two threads take turns at a lock for a ms each: while one has it, and the GIL, the other is blocked."""
    process = make_process(threads=2, holds=10)
    start = START + MS * np.arange(1, count + 1)
    holds = np.zeros(count, process.holds.dtype)
    holds["start"], holds["end"], holds["thread"] = start, start + 900_000, np.arange(count) % 2
    end = int(holds["end"][-1]) + MS
    bare = replace(
        process,
        holds=holds,
        waits=process.waits[:0],
        switch_requests=process.switch_requests[:0],
        runs=process.runs[:0],
        has_sched=False,
        threads=tuple(Thread(one.tid, one.name, START, end) for one in process.threads),
        end=end,
    )
    return make_timeline(with_blocks(bare))


@pytest.fixture(scope="module")
def thinned() -> tuple[TraceProcessor, Timeline, int]:
    timeline, file = lock_bound(), io.BytesIO()
    assert perfetto.stream(timeline, file, limit=900_000).startswith("trace thinned: ")
    return TraceProcessor(file.getvalue()), timeline, len(file.getvalue())


def test_a_thinned_trace_is_small_enough_and_has_some_blocks_as_they_were(
    thinned: tuple[TraceProcessor, Timeline, int],
) -> None:
    trace, timeline, size = thinned
    assert 0.5 * 900_000 < size <= 900_000
    blocks = timeline.processes[0].blocks
    every = {(int(b["start"]), int(b["end"] - b["start"])) for b in blocks}
    rows = {(row["ts"], row["dur"]) for row in trace.query(SLICES)}
    assert rows < every
    assert len(rows) > 50


def test_a_thinned_trace_tells_of_all_time_that_threads_were_blocked(
    thinned: tuple[TraceProcessor, Timeline, int],
) -> None:
    trace, timeline, _ = thinned
    (exact,) = trace.query("select sum(dur) as ns from slice where category = 'block'")
    (coarse,) = trace.query(
        "select sum(extract_arg(arg_set_id, 'debug.blocked (ns)')) as ns from slice where category = 'thinned'"
    )
    blocks = timeline.processes[0].blocks
    assert int(str(exact["ns"])) + int(str(coarse["ns"])) == int((blocks["end"] - blocks["start"]).sum())
    deep = "select count() as n from slice s where category = 'thinned' and depth > 0"
    assert trace.query(deep) == [{"n": 0}]
    assert trace.query("select count() as n from thread_track where name glob 'blocks of *'") == [{"n": 0}]


def test_steps_of_a_blocked_thread_say_so() -> None:
    process = lock_bound(20).processes[0]
    block = process.blocks[:1].copy()
    block["start"], block["end"], block["thread"] = START + 4 * MS, START + 9 * MS, 1
    coarse = Coarse.of(replace(process, holds=process.holds[:2], blocks=block), Grid.over(START, process.end, MS))
    (track,) = np.flatnonzero(coarse.thread == 1)
    merged = coarse.merged(process.end)
    own = merged.track == track
    told = zip(*(column[own].tolist() for column in (merged.start, merged.end, merged.doing)), strict=True)
    assert list(told) == [(START + 2 * MS, START + 3 * MS, HOLDS), (START + 4 * MS, START + 9 * MS, MOSTLY_BLOCKED)]
    assert merged.blocked[own].tolist() == [0, 5 * MS]


def slices_of(trace: TraceProcessor, track: str) -> list[tuple[object, ...]]:
    asked = f"select s.ts, s.dur, s.name from slice s join track t on s.track_id = t.id where t.name = '{track}'"
    return [tuple(row.values()) for row in trace.query(f"{asked} order by s.ts")]


def test_the_critical_path_is_a_track_of_its_own() -> None:
    timeline = make_timeline(with_blocks(make_process()))
    (process,) = timeline.processes
    found = critical_path(process)
    threads = [process.threads[thread].name for thread in found.thread.tolist()]
    expected = list(zip(found.start.tolist(), (found.end - found.start).tolist(), threads, strict=True))
    assert slices_of(load(timeline), "critical path") == expected
    assert slices_of(load(make_timeline(make_process())), "critical path") == []
    cut_off = cut(timeline, [(START, START + 10 * MS)])
    assert slices_of(load(cut_off), "critical path") == []


def test_a_stopped_world_is_a_track_of_its_own() -> None:
    process = without_gil(with_blocks(make_process()))
    locks = process.locks.copy()
    locks["kind"] = LockKind.WORLD
    stopped = replace(process, locks=locks)
    found = slices_of(load(make_timeline(stopped)), "stopped world")
    start, end = union(process.blocks["start"], process.blocks["end"])
    assert [row[:2] for row in found] == list(zip(start.tolist(), (end - start).tolist(), strict=True))
    assert {str(name).partition(" by ")[0] for _, _, name in found} == {"stopped"}

"""What the exporter writes is found again by SQL: every hold and wait with its times, arrows, counters and names."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from giltrace.errors import OutputError
from giltrace.exporters import EXPORTERS
from giltrace.exporters.perfetto import slices as slice_module
from giltrace.exporters.perfetto import trace as perfetto
from giltrace.exporters.perfetto.colours import hue_and_lightness
from giltrace.recording.collected import CollectorReport
from giltrace.recording.events import NATIVE_SAMPLE, SPAN, NativeCode, NativeFunction, Spans
from giltrace.timeline.model import Flag, Process, Thread, Timeline
from giltrace.views.trace_processor import QueryError, TraceProcessor, unavailable
from tests.synthetic import REALTIME_OFFSET, START, make_process, make_timeline
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS
from tests.unit.gil_events import process as scripted
from tests.unit.test_summary_verdict import hog

_WHY_NOT = unavailable()
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))


def all_at_once() -> Process:
    """Make a process whose threads pass the GIL on within one nanosecond."""
    process = make_process(threads=4, holds=4)
    holds = process.holds.copy()
    holds["start"] = holds["end"] = START + 5000
    holds["thread"] = [2, 0, 1, 3]
    waits = np.resize(process.waits, 3)
    waits["start"], waits["end"], waits["timeouts"] = START + np.array([5, 6, 7]), START + 5000, 0
    waits["thread"], waits["hold"] = holds["thread"][1:], [1, 2, 3]
    return replace(process, holds=holds, waits=waits, runs=process.runs[:0])


CASES: dict[str, Timeline] = {
    "one process": make_timeline(make_process()),
    "several processes": make_timeline(
        make_process(100, seed=2), make_process(200, threads=3, first_core=1, seed=3), make_process(300, seed=4)
    ),
    "two GILs": make_timeline(make_process(threads=6, gils=2)),
    "empty process": make_timeline(make_process(threads=0, holds=0, gils=0), make_process(77)),
    "threads but no GIL": make_timeline(make_process(threads=3, holds=0, gils=0)),
    "GIL never held": make_timeline(make_process(threads=3, holds=0)),
    "no sched": make_timeline(make_process(sched=False)),
    "single hold": make_timeline(make_process(threads=1, holds=1)),
    "non-ASCII names": make_timeline(make_process(names=("Prozeß-ü", "线程", "🧵 'quoted'", 'say "x"'))),
    "holds of no length": make_timeline(make_process(empty_holds=True, seed=9)),
    "all at one instant": make_timeline(all_at_once()),
    "large tids": make_timeline(make_process(pid=(1 << 22) - 10, spans=5)),
    "200 threads": make_timeline(make_process(threads=200, holds=2000)),
    "no processes": make_timeline(),
}


def load(timeline: Timeline, folder: Path) -> TraceProcessor:
    path = folder / "trace.pftrace"
    perfetto.write(timeline, path)
    trace = TraceProcessor(path)
    assert trace.query("select name, value from stats where severity in ('error', 'data_loss') and value > 0") == []
    return trace


def slices(trace: TraceProcessor, name: str) -> Counter[tuple[object, ...]]:
    rows = trace.query(
        "select s.ts, s.dur, s.depth, t.tid, p.pid from slice s join thread_track k on s.track_id = k.id"
        f" join thread t using (utid) join process p using (upid) where s.name = '{name}'"
    )
    return Counter(tuple(row.values()) for row in rows)


def expected(timeline: Timeline, table: str) -> Counter[tuple[object, ...]]:
    found: Counter[tuple[object, ...]] = Counter()
    for process in timeline.processes:
        for row in getattr(process, table):
            start, end = int(row["start"]), int(row["end"])
            found[start, end - start, 0, process.threads[row["thread"]].tid, process.pid] += 1
    return found


@pytest.mark.parametrize("piece", [1 << 15, 7], ids=["one piece", "pieces of 7"])
@pytest.mark.parametrize("case", CASES)
def test_every_hold_and_wait_is_found_again(
    case: str, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slice_module, "PIECE", piece)
    trace = load(CASES[case], tmp_path)
    assert slices(trace, "holds GIL") == expected(CASES[case], "holds")
    assert slices(trace, "waits for GIL") == expected(CASES[case], "waits")


@pytest.mark.parametrize("case", CASES)
def test_holder_track_has_one_slice_per_hold_named_by_thread(case: str, tmp_path: Path) -> None:
    timeline = CASES[case]
    trace = load(timeline, tmp_path)
    rows = trace.query(
        "select g.name as grp, s.name, s.ts, s.dur, s.depth from slice s join track k on s.track_id = k.id"
        " join track g on k.parent_id = g.id where k.name glob 'holder*' order by s.ts, s.id"
    )
    want: Counter[tuple[object, ...]] = Counter()
    for process in timeline.processes:
        for hold in process.holds:
            group = f"GIL {hold['gil']} (pid {process.pid})" if process.gils > 1 else f"GIL (pid {process.pid})"
            name = process.threads[hold["thread"]].name
            want[group, name, int(hold["start"]), int(hold["end"] - hold["start"]), 0] += 1
    assert Counter(tuple(row.values()) for row in rows) == want


@pytest.mark.parametrize("case", CASES)
def test_arrows_lead_from_a_release_to_the_waiter_that_got_the_gil(case: str, tmp_path: Path) -> None:
    trace = load(CASES[case], tmp_path)
    rows = trace.query(
        "select a.ts as a, a.dur as ad, b.ts as b, b.dur as bd, at.tid as atid, bt.tid as btid from flow f"
        " join slice a on f.slice_out = a.id join slice b on f.slice_in = b.id"
        " join thread_track ak on a.track_id = ak.id join thread at on ak.utid = at.utid"
        " join thread_track bk on b.track_id = bk.id join thread bt on bk.utid = bt.utid"
    )
    want: Counter[tuple[object, ...]] = Counter()
    for process in CASES[case].processes:
        waited = {int(wait["hold"]): int(wait["start"]) for wait in process.waits if wait["hold"] >= 0}
        for gil in range(process.gils):
            rows_of_gil = np.flatnonzero(process.holds["gil"] == gil).tolist()
            for before, after in pairwise(rows_of_gil):
                a, b = process.holds[before], process.holds[after]
                if a["thread"] != b["thread"] and after in waited and waited[after] <= a["end"]:
                    ends = [int(x) for x in (a["start"], a["end"] - a["start"], b["start"], b["end"] - b["start"])]
                    tids = [process.threads[x["thread"]].tid for x in (a, b)]
                    want[tuple(ends + tids)] += 1
    assert Counter(tuple(row.values()) for row in rows) == want


@pytest.mark.parametrize("case", CASES)
def test_counter_counts_the_waiting_threads_at_every_change(case: str, tmp_path: Path) -> None:
    timeline = CASES[case]
    trace = load(timeline, tmp_path)
    rows = trace.query(
        "select g.name as grp, c.ts, c.value from counter c join track k on c.track_id = k.id"
        " join track g on k.parent_id = g.id where k.name = 'threads waiting for the GIL' order by c.ts"
    )
    for process in timeline.processes:
        for gil in range(process.gils):
            group = f"GIL {gil} (pid {process.pid})" if process.gils > 1 else f"GIL (pid {process.pid})"
            waits = process.waits[process.waits["gil"] == gil]
            got = [(row["ts"], row["value"]) for row in rows if row["grp"] == group]
            times = sorted({process.start, *waits["start"].tolist(), *waits["end"].tolist()})
            count = [int(((waits["start"] <= time) & (time < waits["end"])).sum()) for time in times]
            assert got == list(zip(times, count, strict=True))


def test_switch_requests_are_instants_with_who_asked_whom(tmp_path: Path) -> None:
    process = make_process()
    trace = load(make_timeline(process), tmp_path)
    rows = trace.query(
        "select ts, dur, extract_arg(arg_set_id, 'debug.by') as by, extract_arg(arg_set_id, 'debug.holder') as holder"
        " from slice where name = 'switch request'"
    )
    want: Counter[tuple[object, ...]] = Counter()
    for request in process.switch_requests:
        time = request["time"]
        holding = process.holds[(process.holds["start"] <= time) & (time < process.holds["end"])]
        holder = process.threads[holding["thread"][0]].name if len(holding) else None
        want[int(time), 0, process.threads[request["thread"]].name, holder] += 1
    assert want
    assert Counter(tuple(row.values()) for row in rows) == want


def test_holds_tell_why_they_ended_and_where_they_began(tmp_path: Path) -> None:
    process = make_process(threads=5, gils=2)
    trace = load(make_timeline(process), tmp_path)
    names = ("release", "core", "gil", "partial")
    columns = ", ".join(f"extract_arg(arg_set_id, 'debug.{name}') as {name}" for name in names)
    rows = trace.query(
        f"select extract_arg(arg_set_id, 'debug.hold') as hold, {columns} from slice where name = 'holds GIL'"
    )
    assert len(rows) == len(process.holds)
    for row in rows:
        index = row["hold"]
        assert isinstance(index, int)
        hold = process.holds[index]
        forced = "forced" if hold["flags"] & Flag.FORCED else "voluntary"
        assert row["release"] == ("still held at the end" if hold["flags"] & Flag.PARTIAL_END else forced)
        assert row["core"] == (hold["core"] if hold["core"] >= 0 else None)
        assert row["gil"] == hold["gil"]
        assert (row["partial"] is not None) == bool(hold["flags"] & (Flag.PARTIAL_START | Flag.PARTIAL_END))


def test_waits_tell_who_held_the_gil_and_what_they_led_to(tmp_path: Path) -> None:
    process = make_process(threads=6)
    process.waits["hold"][-1] = -1
    trace = load(make_timeline(process), tmp_path)
    told = ["culprit", "culprit ns", "culprit share"]
    told += [f"also held by[{at}].{name}" for at in range(2) for name in ("thread", "ns", "share")]
    columns = ", ".join(f"extract_arg(s.arg_set_id, 'debug.{name}')" for name in ("timeouts", "led to hold", *told))
    rows = trace.run(
        f"select s.ts, t.tid, {columns} from slice s"
        " join thread_track k on s.track_id = k.id join thread t using (utid)"
        " where s.name = 'waits for GIL'"
    ).rows
    want: Counter[tuple[object, ...]] = Counter()
    for wait in process.waits:
        start, end = int(wait["start"]), int(wait["end"])
        lost = np.minimum(process.holds["end"], end) - np.maximum(process.holds["start"], start)
        by_thread = np.bincount(process.holds["thread"], weights=np.maximum(lost, 0), minlength=6).astype(int)
        ranked = [thread for thread in np.argsort(-by_thread, kind="stable").tolist() if by_thread[thread] > 0][:3]
        holders: list[object] = []
        for thread in ranked:
            ns = int(by_thread[thread])
            holders += [process.threads[thread].name, ns, f"{int(1000 * ns / (end - start) + 0.5) / 10:.1f}%"]
        led_to = int(wait["hold"]) if wait["hold"] >= 0 else None
        known = (start, process.threads[wait["thread"]].tid, int(wait["timeouts"]), led_to)
        row = (*known, *holders, *[None] * (9 - len(holders)))
        want[row] += 1
    assert {key[4] for key in want} >= {None, "MainThread"}
    assert any(key[-1] is not None for key in want)
    assert Counter(map(tuple, rows)) == want


def test_details_say_the_own_line_first_and_how_a_stack_is_known(tmp_path: Path) -> None:
    library = ("iterencode", "/usr/lib/python3.11/json/encoder.py", 257)
    stacks = [[library, ("crunch", "app.py", 5)], [("give", "app.py", 9)], [("take", "app.py", 0)]]
    made = with_stacks(make_process(threads=3, holds=30), stacks, hold={0: 0, 1: 1}, wait={0: 1, 1: 0})
    assert made.stacks is not None
    begin = np.full(len(made.holds), 2, np.int32)
    trace = load(make_timeline(replace(made, stacks=replace(made.stacks, hold_begin=begin))), tmp_path)
    keys = ("own line", "stack", "let go at", "taken at", "culprit own line", "culprit let go at", "culprit taken at")
    columns = ", ".join(f"extract_arg(arg_set_id, 'debug.{key}')" for key in keys)
    found = {
        name: {tuple(row) for row in trace.run(f"select distinct {columns} from slice where name = '{name}'").rows}
        for name in ("holds GIL", "waits for GIL")
    }
    encoded = "iterencode (/usr/lib/python3.11/json/encoder.py:257) < crunch (app.py:5)"
    assert found["holds GIL"] == {
        ("crunch (app.py:5)", None, encoded, None, None, None, None),
        (None, None, "give (app.py:9)", None, None, None, None),
        (None, None, None, "take (app.py)", None, None, None),
    }
    assert {row[4:] for row in found["waits for GIL"]} >= {
        ("crunch (app.py:5)", encoded, None),
        (None, "give (app.py:9)", None),
        (None, None, "take (app.py)"),
    }
    assert {row[:2] for row in found["waits for GIL"]} == {
        ("crunch (app.py:5)", encoded),
        (None, "give (app.py:9)"),
        (None, None),
    }
    culprits = trace.query(
        "select distinct s.name, extract_arg(s.arg_set_id, 'debug.own line') as own,"
        " extract_arg(s.arg_set_id, 'debug.leaf') as leaf from slice s join track k on s.track_id = k.id"
        " where k.name glob 'culprits*'"
    )
    leaf = encoded.partition(" < ")[0]
    assert {tuple(row.values()) for row in culprits} == {
        (f"crunch (app.py:5) [{leaf}]", "crunch (app.py:5)", leaf),
        ("give (app.py:9)", None, None),
        ("take (app.py)", None, None),
    }


def test_details_say_which_native_code_a_hog_was_in(tmp_path: Path) -> None:
    # Thread 101 holds for 300 ms from 20 us on, again and again.
    samples = np.array([(time, 101, time // MS % 2) for time in range(100 * MS, 110 * MS, MS)], NATIVE_SAMPLE)
    functions = (NativeFunction("sort", "/lib/a.so"), NativeFunction("compare", "/lib/a.so"))
    hogs = replace(scripted(*hog()), native_code=NativeCode(functions, samples))
    trace = load(make_timeline(hogs), tmp_path)
    text = "extract_arg(arg_set_id, 'debug.in C')"
    assert trace.query(f"select dur, {text} as told from slice where {text} is not null") == [
        {"dur": 300 * MS, "told": "compare 50.0%, sort 50.0% (a.so, 10 samples)"}
    ]


def test_spans_are_nested_slices_of_their_threads(tmp_path: Path) -> None:
    process = make_process(threads=3, spans=40)
    trace = load(make_timeline(process), tmp_path)
    for spans, track in zip(process.spans, ("viztracer", "py-spy samples"), strict=True):
        rows = trace.query(
            "select s.ts, s.dur, s.depth, s.name, t.tid from slice s join thread_track k on s.track_id = k.id"
            f" join thread t using (utid) where k.name = '{track}'"
        )
        want = Counter(
            (int(s["start"]), int(s["end"] - s["start"]), int(s["depth"]), spans.names[s["name"]], int(s["tid"]))
            for s in spans.spans
        )
        assert Counter(tuple(row.values()) for row in rows) == want


def test_spans_of_no_length_stay_inside_what_called_them(tmp_path: Path) -> None:
    rows = [(0, 9, 0), (0, 0, 1), (0, 5, 1), (5, 5, 1), (5, 5, 2), (5, 9, 1), (9, 9, 0), (9, 9, 0), (9, 12, 0)]
    table = np.zeros(len(rows), SPAN)
    for at, (start, end, depth) in enumerate(rows):
        table[at] = (START + start, START + end, 4242, at, depth)
    spans = Spans("viztracer", 4242, False, tuple(f"f{at}" for at in range(len(rows))), table)
    trace = load(make_timeline(replace(make_process(), spans=(spans,))), tmp_path)
    found = trace.query(
        f"select ts - {START} as start, dur, depth, name from slice where cat = 'viztracer' order by name"
    )
    want = [(start, end - start, depth, f"f{at}") for at, (start, end, depth) in enumerate(rows)]
    assert [tuple(row.values()) for row in found] == want


def test_a_recording_says_how_good_it_is(tmp_path: Path) -> None:
    process = replace(make_process(), violations=("two threads held GIL 0 at 5 ns",), lost=12, note="ring mode")
    report = CollectorReport("py-spy", "not installed", clock_error_ns=7)
    trace = load(make_timeline(process, collectors=(report,)), tmp_path)
    rows = trace.query(
        "select s.ts, s.name, a.key, a.display_value as value from slice s join track k on s.track_id = k.id"
        " join args a using (arg_set_id) where k.name = 'recording'"
    )
    assert {(row["ts"], row["name"]) for row in rows} == {(START, "1 VIOLATIONS, 12 events lost, clock error 35 ns")}
    notes = {row["key"]: row["value"] for row in rows}
    assert notes["debug.violation 1"] == "two threads held GIL 0 at 5 ns"
    assert notes["debug.note"] == "ring mode"
    assert notes["debug.lost events"] == "12"
    assert notes["debug.collector py-spy"] == "not installed; clock error 7 ns; lost 0"


def test_threads_and_processes_have_their_true_names(tmp_path: Path) -> None:
    timeline = CASES["non-ASCII names"]
    process = timeline.processes[0]
    trace = load(timeline, tmp_path)
    rows = trace.query(
        "select t.tid, t.name, p.name as process from thread t join process p using (upid) where pid > 1"
    )
    assert {(row["tid"], row["name"], row["process"]) for row in rows} == {
        (thread.tid, thread.name, "convoy.py") for thread in process.threads
    }


def test_a_second_program_in_the_same_process_shares_its_tracks(tmp_path: Path) -> None:
    first = make_process(threads=2, holds=20)
    shift = first.end - START
    holds, waits = first.holds.copy(), first.waits.copy()
    for table in (holds, waits):
        table["start"] += shift
        table["end"] += shift
    threads = tuple(Thread(t.tid, t.name, t.start + shift, t.end + shift) for t in first.threads)
    second = replace(first, holds=holds, waits=waits, threads=threads, runs=first.runs[:0], start=first.end)
    timeline = replace(make_timeline(first, second), end=first.end + shift)
    trace = load(timeline, tmp_path)
    assert slices(trace, "holds GIL") == expected(timeline, "holds")
    assert trace.query("select count(*) as n from track where name = 'holder'") == [{"n": 1}]


def test_time_is_monotonic_with_real_time_known(tmp_path: Path) -> None:
    trace = load(CASES["one process"], tmp_path)
    rows = trace.query("select clock_name, clock_value - ts as ahead from clock_snapshot where clock_name = 'REALTIME'")
    assert rows == [{"clock_name": "REALTIME", "ahead": REALTIME_OFFSET}]


def test_holds_are_green_and_waits_red(tmp_path: Path) -> None:
    trace = load(CASES["one process"], tmp_path)
    rows = trace.query(
        "select distinct name, extract_arg(arg_set_id, 'correlation_id') as id from slice where name like '%s%GIL'"
    )
    hues = {row["name"]: hue_and_lightness(str(row["id"]))[0] for row in rows}
    assert abs(hues["holds GIL"] - 135) <= 3
    assert abs(hues["waits for GIL"] - 14) <= 3


def test_threads_differ_in_colour_on_the_holder_track(tmp_path: Path) -> None:
    process: Process = make_process(threads=6)
    trace = load(make_timeline(process), tmp_path)
    rows = trace.query(
        "select distinct s.name, extract_arg(s.arg_set_id, 'correlation_id') as id from slice s"
        " join track k on s.track_id = k.id where k.name = 'holder'"
    )
    assert len(rows) == len({row["id"] for row in rows}) == len(set(process.holds["thread"].tolist()))


def test_bad_sql_and_bad_traces_are_told_apart() -> None:
    with pytest.raises(QueryError, match="SQL error"):
        TraceProcessor(b"").query("select nothing from nowhere")
    with pytest.raises(QueryError, match="cannot be read"):
        TraceProcessor(b"no trace at all" * 100)
    with pytest.raises(QueryError, match=r"absent\.pftrace"):
        TraceProcessor(Path("absent.pftrace"))


def test_every_kind_of_value_comes_back() -> None:
    rows = TraceProcessor(b"").query(
        "select 1 as i, -5 as j, 2.5 as f, 'ü' as s, null as n, x'00ff' as b union all select 2, 3, 4.5, '', null, x''"
    )
    assert rows[0] == {"i": 1, "j": -5, "f": 2.5, "s": "ü", "n": None, "b": b"\x00\xff"}
    assert [row["s"] for row in rows] == ["ü", ""]


def test_a_failed_export_leaves_the_old_trace_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "trace.pftrace"
    path.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(perfetto, "write_sched", full)
    with pytest.raises(OutputError, match="No space left"):
        perfetto.write(CASES["one process"], path)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("trace.pftrace", b"old")]


def test_a_file_in_place_of_the_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match="taken"):
        perfetto.write(CASES["one process"], tmp_path / "taken" / "trace.pftrace")


def test_the_registry_writes_what_the_module_writes(tmp_path: Path) -> None:
    (exporter,) = (exporter for exporter in EXPORTERS if exporter.name == "perfetto")
    assert exporter.suffix == ".pftrace"
    exporter.write(CASES["one process"], tmp_path / "a")
    perfetto.write(CASES["one process"], tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()

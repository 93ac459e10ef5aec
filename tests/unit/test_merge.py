"""Other profilers' files: what is read of each format, on which clock it comes to lie, and what SQL says of it."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giltrace.errors import MergeError
from giltrace.exporters.perfetto.trace import write
from giltrace.merging.align import align
from giltrace.merging.formats import read
from giltrace.merging.merge import Outcome, merge
from giltrace.merging.parsed import Parsed
from giltrace.recording.merged import path_of, read_merged, write_merged
from giltrace.recording.meta import Meta
from giltrace.timeline.cut import cut
from giltrace.timeline.model import Process, Timeline
from giltrace.timeline.part import window
from giltrace.views.gil_tables import GilTraceProcessor
from giltrace.views.trace_processor import unavailable
from tests.synthetic import REALTIME_OFFSET, START, make_process, make_timeline

MS = 1_000_000
BASE = 1_790_857_026_000_000_000


def spans(parsed: Parsed) -> list[tuple[str, int, int, int]]:
    """Name, start, end and depth of each span."""
    return [(parsed.names[row["name"]], int(row["start"]), int(row["end"]), int(row["depth"])) for row in parsed.rows]


def saved(folder: Path, content: Any, name: str = "other.json") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def complete(name: str, ts: float, dur: float, tid: int = 7, **more: Any) -> dict[str, Any]:
    return {"ph": "X", "name": name, "pid": 4242, "tid": tid, "ts": ts, "dur": dur, **more}


ON_GPU = {"pid": 0, "args": {"device": 0, "stream": 7, "correlation": 9}}
KINETO = {
    "schemaVersion": 1,
    "deviceProperties": [],
    "baseTimeNanoseconds": BASE,
    "traceEvents": [
        {"ph": "M", "name": "thread_name", "pid": 4242, "tid": 7, "args": {"name": "thread 7 (python)"}},
        complete("ProfilerStep#1", 1000.5, 900.25, cat="user_annotation"),
        complete("cudaLaunchKernel", 1100, 5, cat="cuda_runtime", args={"correlation": 9}),
        {**complete("gemm", 1200, 50, cat="kernel"), **ON_GPU},
        {"ph": "i", "name": "Iteration Start", "pid": "Traces", "tid": "t", "ts": 1000, "s": "g"},
        {"ph": "X", "name": "PyTorch Profiler (0)", "pid": "Spans", "tid": "PyTorch Profiler", "ts": 900, "dur": 2000},
    ],
}


def test_torchs_kernels_are_on_their_stream_and_know_who_launched_them(tmp_path: Path) -> None:
    parsed = read(saved(tmp_path, KINETO))
    assert (parsed.kind, parsed.clock, parsed.sampled) == ("torch", "realtime", False)
    assert ("ProfilerStep#1", BASE + 1_000_500, BASE + 1_900_750, 0) in spans(parsed)
    assert ("cudaLaunchKernel", BASE + 1_100_000, BASE + 1_105_000, 1) in spans(parsed)
    (kernel,) = (row for row in parsed.rows if parsed.names[row["name"]] == "gemm")
    assert parsed.tracks[kernel["track"]] == (0, 0, "GPU 0 stream 7")
    assert parsed.tracks[kernel["launcher"]][:2] == (4242, 7)
    assert parsed.left_out == {"instant": 1}


def test_a_packed_file_says_the_same(tmp_path: Path) -> None:
    packed = tmp_path / "other.json.gz"
    packed.write_bytes(gzip.compress(json.dumps(KINETO).encode()))
    assert spans(read(packed)) == spans(read(saved(tmp_path, KINETO)))
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(MergeError, match="cannot be unpacked"):
        read(packed)


def test_viztracers_clock_is_the_recordings(tmp_path: Path) -> None:
    parsed = read(saved(tmp_path, {"traceEvents": [complete("f", 3640789023.913, 0.866)], "viztracer_metadata": {}}))
    assert (parsed.kind, parsed.clock) == ("viztracer", "monotonic")
    assert spans(parsed) == [("f", 3_640_789_023_913, 3_640_789_024_779, 0)]


def test_begins_and_ends_are_paired_and_what_is_crossing_is_cut(tmp_path: Path) -> None:
    events = [
        {"ph": "B", "name": "outer", "pid": 4242, "tid": 7, "ts": 1},
        {"ph": "B", "name": "inner", "pid": 4242, "tid": 7, "ts": 2},
        {"ph": "E", "pid": 4242, "tid": 7, "ts": 3},
        {"ph": "E", "pid": 4242, "tid": 7, "ts": 5},
        {"ph": "E", "pid": 4242, "tid": 7, "ts": 6},
        complete("long", 10, 10),
        complete("crossing", 15, 10),
        {"ph": "B", "name": "open", "pid": 4242, "tid": 7, "ts": 30},
        complete("last", 31, 4),
    ]
    parsed = read(saved(tmp_path, events))
    assert spans(parsed) == [
        ("outer", 1_000, 5_000, 0),
        ("inner", 2_000, 3_000, 1),
        ("long", 10_000, 20_000, 0),
        ("crossing", 15_000, 20_000, 1),
        ("open", 30_000, 35_000, 0),
        ("last", 31_000, 35_000, 1),
    ]
    assert parsed.left_out == {"end without a begin": 1, "end of a span that outlives the one around it": 1}
    assert (parsed.kind, parsed.clock) == ("chrome", None)


def test_a_rounded_time_makes_no_child_of_a_neighbour(tmp_path: Path) -> None:
    parsed = read(saved(tmp_path, [complete("one", 1, 0.502), complete("next", 1.5, 0.5)]))
    assert spans(parsed) == [("one", 1_000, 1_500, 0), ("next", 1_500, 2_000, 0)]


def py_spy(name: str) -> list[dict[str, Any]]:
    def event(phase: str, name: str, ts: int, line: int = 0) -> dict[str, Any]:
        arguments = {"filename": "a.py" if line else "", "line": line}
        return {"cat": "py-spy", "ph": phase, "name": name, "pid": 4242, "tid": 139_994, "ts": ts, "args": arguments}

    return [
        event("B", name, 5),
        event("B", "work", 5, 9),
        event("E", "work", 15, 9),
        event("E", name, 15),
    ]


def test_py_spys_outermost_frame_is_the_thread(tmp_path: Path) -> None:
    parsed = read(saved(tmp_path, py_spy("thread (7): MainThread")))
    assert (parsed.kind, parsed.clock, parsed.sampled) == ("py-spy", None, True)
    assert spans(parsed) == [("work (a.py:9)", 5_000, 15_000, 0)]
    assert parsed.tracks[0][:2] == (4242, 7)
    for unknown in ("thread (0x7f00): MainThread", "work"):
        with pytest.raises(MergeError, match="does not say which threads") as refused:
            read(saved(tmp_path, py_spy(unknown)))
        assert "--threads" in refused.value.remedy


def gecko(**about: Any) -> dict[str, Any]:
    thread = {
        "name": "Thread-7",
        "pid": "99",
        "tid": 7,
        "samples": {"stack": [1, 1, 0, 1], "time": [0, 1, 2, 50]},
        "stackTable": {"frame": [0, 1], "prefix": [None, 0]},
        "frameTable": {"func": [0, 1], "line": [3, 8]},
        "funcTable": {"name": [0, 1], "fileName": [2, 2]},
    }
    meta = {"importedFrom": "Tachyon Sampling Profiler", "startTime": 1_000.5, "interval": 1.0, **about}
    return {"meta": meta, "threads": [thread], "shared": {"stringArray": ["main", "work", "a.py"]}}


def test_tachyons_equal_looks_are_one_span(tmp_path: Path) -> None:
    parsed = read(saved(tmp_path, gecko()))
    assert (parsed.kind, parsed.clock, parsed.error_ns, parsed.profilers_pid) == ("tachyon", "monotonic", MS, True)
    at = 1_000_500_000
    assert spans(parsed) == [
        ("main (a.py:3)", at, at + 3 * MS, 0),
        ("work (a.py:8)", at, at + 2 * MS, 1),
        ("main (a.py:3)", at + 50 * MS, at + 51 * MS, 0),
        ("work (a.py:8)", at + 50 * MS, at + 51 * MS, 1),
    ]


def speedscope(kind: str) -> dict[str, Any]:
    events = [{"type": "O", "frame": 0, "at": 1}, {"type": "C", "frame": 0, "at": 3}]
    profile = {"type": kind, "name": "Process 4242 Thread 7", "unit": "milliseconds", "events": events}
    schema = "https://www.speedscope.app/file-format-schema.json"
    return {"$schema": schema, "profiles": [profile], "shared": {"frames": [{"name": "f", "file": "a.py", "line": 2}]}}


def test_speedscopes_events_have_times_and_its_samples_none(tmp_path: Path) -> None:
    parsed = read(saved(tmp_path, speedscope("evented")))
    assert spans(parsed) == [("f (a.py:2)", MS, 3 * MS, 0)]
    assert parsed.tracks[0][:2] == (4242, 7)
    with pytest.raises(MergeError, match="no times, only an order") as refused:
        read(saved(tmp_path, speedscope("sampled")))
    assert "chrometrace" in refused.value.remedy


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"traceEvents": NaN}', "is no JSON"),
        ("7", "no profile"),
        ({"a": 1}, "no profile"),
        ([], "has no spans"),
        ({"traceEvents": [{"ph": "C", "ts": 1}]}, "1 counter value left out"),
        ([complete("f", 1, 2), 7], "is no object"),
        ([{"ph": "X", "name": "f"}], "the ts of an event is None, no number"),
        ([complete("f", "x", 2)], "no number"),  # type: ignore[arg-type]
        ([complete("f", 1e300, 2)], "no time"),
        ({"baseTimeNanoseconds": "x", "traceEvents": []}, "baseTimeNanoseconds"),
        ({"meta": {}, "threads": [{}], "shared": {"stringArray": []}}, "no stackTable.prefix"),
        ({"meta": {}, "threads": 1, "shared": {"stringArray": []}}, "threads are no list"),
        ('{"type":"meta","v":0}\n{"type":"end"}', "how often each line was seen, not when"),
        ("\x0a\x05hello", "is a Perfetto trace"),
    ],
)
def test_what_is_no_profile_is_refused_in_a_line(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(MergeError) as refused:
        read(saved(tmp_path, content))
    assert said in refused.value.message
    assert "\n" not in refused.value.message
    assert refused.value.remedy


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_file_is_read_or_refused(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    for content in (KINETO, gecko(), speedscope("evented"), py_spy("thread (7): a")):
        data = bytearray(json.dumps(content).encode())
        for _ in range(int(random.integers(1, 6))):
            data[random.integers(len(data))] = random.integers(32, 127)
        path = tmp_path / "other.json"
        path.write_bytes(data[: random.integers(len(data))] if seed % 4 == 0 else data)
        remedy = ""
        try:
            rows = len(read(path).rows)
        except MergeError as refused:
            rows, remedy = 0, refused.remedy
        assert bool(rows) != bool(remedy)


# On the clock of a recording.


@pytest.fixture(scope="module")
def timeline() -> Timeline:
    return make_timeline(make_process(holds=400))


def of(timeline: Timeline) -> Meta:
    offset = timeline.realtime_offset
    return Meta("0", [], timeline.start, offset, timeline.boottime_offset, {}, end_ns=timeline.end)


def stamped(process: Process, thread: int, distance: int) -> list[dict[str, Any]]:
    """What a tracer within a thread says: a span from a while after each run's begin to a while before its end."""
    runs = process.runs[process.runs["thread"] == thread]
    tid = process.threads[thread].tid
    return [
        complete("f", (int(run["start"]) + 1_000 - distance) / 1e3, (int(run["end"] - run["start"]) - 2_000) / 1e3, tid)
        for run in runs
        if run["end"] - run["start"] > 10_000
    ]


def merged(folder: Path, content: Any, timeline: Timeline, **how: Any) -> Outcome:
    return merge(saved(folder, content), timeline, of(timeline), **how)


def test_a_clock_that_nobody_knows_is_found_by_when_threads_ran(tmp_path: Path, timeline: Timeline) -> None:
    distance = timeline.start - 12_345_678
    events = [one for thread in (0, 1) for one in stamped(timeline.processes[0], thread, distance)]
    found = merged(tmp_path, events, timeline)
    assert (found.threads, found.others) == (2, 0)
    assert found.alignment.clock == "found by when its threads ran"
    assert found.alignment.fitting == found.alignment.readings > 50
    assert abs(found.alignment.distance - distance) <= found.alignment.error_ns < MS


@pytest.mark.parametrize("distance", [0, -REALTIME_OFFSET])
def test_one_of_the_machines_clocks_is_recognised(tmp_path: Path, timeline: Timeline, distance: int) -> None:
    found = merged(tmp_path, stamped(timeline.processes[0], 0, distance), timeline)
    assert found.alignment.distance == distance
    assert found.alignment.clock == ("CLOCK_MONOTONIC" if not distance else "CLOCK_REALTIME")


def test_a_clock_is_taken_at_its_word_only_if_it_fits(tmp_path: Path, timeline: Timeline) -> None:
    process = timeline.processes[0]
    late = [{**one, "ts": one["ts"] + 3_700} for one in stamped(process, 0, 0)]
    with pytest.raises(MergeError, match="its threads did not run"):
        merged(tmp_path, late, timeline, clock="monotonic")
    with pytest.raises(MergeError, match="before the recording"):
        merged(tmp_path, [complete("f", 1, 2)], timeline, clock="monotonic")
    with pytest.raises(MergeError, match="after the recording"):
        merged(tmp_path, [complete("f", REALTIME_OFFSET / 1e3, 2)], timeline, clock="monotonic")


@pytest.mark.parametrize("stepped", [None, 5, 7_000_000_000])
def test_a_clock_that_was_set_is_bounded_by_what_fits(tmp_path: Path, timeline: Timeline, stepped: int | None) -> None:
    parsed = read(saved(tmp_path, stamped(timeline.processes[0], 0, -REALTIME_OFFSET)))
    tid = timeline.processes[0].threads[0].tid
    places = {at: (0, 0) for at, track in enumerate(parsed.tracks) if track.tid == tid}
    found = align(parsed, places, timeline, "realtime", stepped)
    assert found.distance == -REALTIME_OFFSET
    assert (found.error_ns < 12_000) == (stepped == 5)
    assert found.error_ns < 50 * MS
    unseen = align(parsed, {}, timeline, "realtime", stepped)
    assert ("if nobody set it" in unseen.clock) == (stepped != 5)


def test_without_a_thread_on_record_a_clock_has_to_be_named(tmp_path: Path, timeline: Timeline) -> None:
    events = [complete("f", (START + MS) / 1e3, 2, tid=99)]
    with pytest.raises(MergeError, match="cannot be found") as refused:
        merged(tmp_path, events, timeline)
    assert "--clock" in refused.value.remedy
    found = merged(tmp_path, events, timeline, clock="monotonic", label="mine")
    assert (found.threads, found.others, found.merged.label) == (0, 1, "mine")
    with pytest.raises(MergeError, match="no label"):
        merged(tmp_path, events, timeline, clock="monotonic", label="../x")


def test_threads_that_always_run_fit_anywhere_and_are_refused(tmp_path: Path, timeline: Timeline) -> None:
    process = timeline.processes[0]
    steady = np.zeros(1, process.runs.dtype)
    steady["start"], steady["end"] = process.start, process.end
    one = replace(timeline, processes=(replace(process, runs=steady),))
    tid = process.threads[0].tid
    with pytest.raises(MergeError, match="fits within"):
        merged(tmp_path, [complete("f", at, 2, tid) for at in range(100)], one)


def test_tachyons_threads_are_found_by_their_own_ids(tmp_path: Path, timeline: Timeline) -> None:
    process = timeline.processes[0]
    run = process.runs[0]
    profile = gecko(startTime=int(run["start"]) / MS, interval=1.0)
    profile["threads"][0]["tid"] = process.threads[run["thread"]].tid
    profile["threads"][0]["samples"] = {"stack": [1], "time": [0]}
    found = merged(tmp_path, profile, timeline)
    assert (found.threads, found.others) == (1, 0)
    assert found.merged.tracks[0].pid == process.pid


# In the recording, its parts, and its trace.


@pytest.fixture
def whole(tmp_path: Path, timeline: Timeline) -> Timeline:
    """Steps of a training loop on the thread that waits, and a GPU whose work that thread asks for."""
    process = timeline.processes[0]
    waits = process.waits
    thread = int(np.bincount(waits["thread"]).argmax())
    own = waits[waits["thread"] == thread]
    tid, events = process.threads[thread].tid, []
    for number, wait in enumerate(own[10:20]):
        start, end = int(wait["start"]) - 5_000, int(wait["end"]) + 5_000
        call = {"cat": "cuda_runtime", "args": {"correlation": number + 1}}
        events.append(complete("cudaLaunchKernel", (end - 2_000) / 1e3, 1, tid, **call))
        events.append(complete(f"ProfilerStep#{number}", start / 1e3, (end - start) / 1e3, tid, cat="user_annotation"))
        on = {"pid": 0, "tid": 7, "args": {"device": 0, "stream": 7, "correlation": number + 1}}
        events.append({**complete("gemm", end / 1e3, 1, cat="kernel"), **on})
    found = merged(tmp_path, {"viztracer_metadata": {}, "traceEvents": events}, timeline)
    return replace(timeline, merged=(found.merged,))


def test_a_recording_keeps_what_was_merged(tmp_path: Path, whole: Timeline) -> None:
    (written,) = whole.merged
    write_merged(tmp_path, written)
    (found,) = read_merged(tmp_path)
    assert found._replace(rows=written.rows) == written
    assert np.array_equal(found.rows, written.rows)
    write_merged(tmp_path, written)
    assert len(read_merged(tmp_path)) == 1


def test_what_makes_no_sense_of_it_is_left_out_and_told(tmp_path: Path, whole: Timeline) -> None:
    (written,) = whole.merged
    rows = written.rows.copy()
    rows["track"][0], rows["name"][1], rows["launcher"][2], rows["end"][3] = 99, 99_999, 99, 0
    path = write_merged(tmp_path, written._replace(rows=rows))
    damage: list[str] = []
    (found,) = read_merged(tmp_path, damage=damage)
    assert len(found.rows) == len(rows) - 4
    assert damage == [f"{path.name}: 4 spans make no sense: left out"]
    path_of(tmp_path, "broken").write_bytes(b"PK\x03\x04")
    damage.clear()
    assert len(read_merged(tmp_path, damage=damage)) == 1
    assert "merged-broken.npz is damaged" in damage[0]


def test_a_part_has_its_part_of_it(whole: Timeline) -> None:
    rows = whole.merged[0].rows
    middle = int(np.median(rows["start"]))
    (part,) = window(whole, whole.start, middle).merged
    assert 0 < len(part.rows) < len(rows)
    assert part.rows["end"].max() <= middle
    shown = cut(whole, [(whole.start, middle)])
    assert 0 < len(shown.merged[0].rows) < len(rows)
    assert shown.cut is not None
    assert shown.cut.spans == len(rows) - len(shown.merged[0].rows)


@pytest.mark.skipif(unavailable() is not None, reason=unavailable() or "")
def test_sql_says_how_much_of_a_step_and_of_a_gap_is_the_gils(tmp_path: Path, whole: Timeline) -> None:
    write(whole, tmp_path / "x.pftrace")
    trace = GilTraceProcessor(tmp_path / "x.pftrace")
    process = whole.processes[0]
    thread = int(np.bincount(process.waits["thread"]).argmax())
    tables = (process.waits, process.holds)
    waits, holds = (rows[rows["thread"] == thread] for rows in tables)

    def within(rows: Any, start: int, end: int) -> int:
        return int(np.maximum(np.minimum(rows["end"], end) - np.maximum(rows["start"], start), 0).sum())

    found = trace.query("select * from gil_spans where name glob 'ProfilerStep*'")
    assert len(found) == 10
    gaps = trace.query("select * from gil_gaps where track = 'GPU 0 stream 7'")
    assert len(gaps) == 9
    for row in [*found, *gaps]:
        start, length = int(str(row["ts"])), int(str(row["dur"]))
        waited, held = within(waits, start, start + length), within(holds, start, start + length)
        assert (row["waited"], row["held"], row["off"]) == (waited, held, length - waited - held)
        assert row["thread"] == process.threads[thread].name
        assert row["waits"] == int(((waits["start"] < start + length) & (waits["end"] > start)).sum())
        assert 0 < int(str(row["culprit_ns"])) <= waited
        assert row["culprit"] in {one.name for one in process.threads}
    assert all(row["before"] == row["after"] == "gemm" for row in gaps)
    # The analyses of the GIL do not change.
    (count,) = trace.query("select count() as n from gil_waits")
    assert count["n"] == len(process.waits)

"""Real recordings, asked by SQL: their traces show what their timelines say, to the nanosecond, on the right tracks."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest

from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.stretches import Source
from giltrace.exporters._places import KNOWN_BY, Places
from giltrace.exporters._relations import relate
from giltrace.timeline.load import load
from giltrace.timeline.model import BlockEnd, Process, Timeline
from giltrace.views.gil_tables import GilTraceProcessor
from giltrace.views.trace_processor import Value, unavailable

WHY_NOT = unavailable()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=WHY_NOT or "")

Rows = Counter[tuple[Value, ...]]

#: What is recorded: a workload, its arguments and the recorder's, in this order.
WORKLOADS = {
    "cpu_bound": ("--light", "cpu_bound", "--threads", "3", "--count", "2000000"),
    "convoy": ("--light", "convoy", "--steps", "30"),
    "io_bound": ("--light", "io_bound", "--seconds", "0.2"),
    "hog": ("--light", "hog", "--rounds", "3"),
    "native_parallel": ("--light", "native_parallel", "--rounds", "20"),
    "multiprocess": ("--light", "multiprocess", "--processes", "3", "--count", "1000000"),
    "all collectors": ("convoy", "--steps", "60"),
}

WAITS = "waits for GIL"

#: Joins that lead from slice `s` to its thread's track.
OF_THREAD = "join thread_track k on s.track_id = k.id join thread t using (utid) join process p using (upid)"


@dataclass(frozen=True)
class Recording:
    timeline: Timeline
    trace: GilTraceProcessor

    def rows(self, sql: str) -> Rows:
        return Counter(tuple(row.values()) for row in self.trace.query(sql))


@pytest.fixture(scope="module", params=WORKLOADS)
def recording(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    folder = tmp_path_factory.mktemp("recording")
    # Our own interpreter: it can import viztracer.
    command = [sys.executable, "-m", "giltrace", "record", "--python", sys.executable, "-o", str(folder / "x")]
    done = subprocess.run([*command, *WORKLOADS[request.param]], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    timeline = load(folder / "x.giltrace")
    assert timeline.violations == ()
    assert timeline.lost == 0
    assert any(len(process.holds) for process in timeline.processes)
    return Recording(timeline, GilTraceProcessor(folder / "x.pftrace"))


def spell(gil: int, process: Process) -> str:
    return f"GIL {gil}" if process.gils > 1 else "GIL"


def pids(timeline: Timeline) -> str:
    return ",".join(str(process.pid) for process in timeline.processes)


def traced_runs(timeline: Timeline) -> Iterator[tuple[int, np.void]]:
    """Yield each run of the traced processes with its tid, those from before their first record too."""
    if not all(process.has_sched for process in timeline.processes):
        pytest.skip("; ".join(f"{report.name}: {report.status}" for report in timeline.collectors))
    for process in timeline.processes:
        for run in process.runs:
            yield process.threads[run["thread"]].tid, run
    traced = {process.pid for process in timeline.processes}
    for run in timeline.other_runs:
        task = timeline.other_tasks[run["thread"]]
        if task.pid in traced:
            yield task.tid, run


def test_the_reader_finds_nothing_wrong(recording: Recording) -> None:
    wrong = "select name, value from stats where severity in ('error', 'data_loss') and value > 0"
    assert recording.trace.query(wrong) == []


@pytest.mark.parametrize(("table", "name"), [("holds", "holds GIL"), ("waits", "waits for GIL")])
def test_every_hold_and_wait_is_on_its_threads_gil_track(recording: Recording, table: str, name: str) -> None:
    want: Rows = Counter()
    for process in recording.timeline.processes:
        for row in getattr(process, table):
            start, end = int(row["start"]), int(row["end"])
            thread = process.threads[row["thread"]]
            track = f"GIL of {thread.name}" + (f", GIL {row['gil']}" if process.gils > 1 else "")
            want[start, end - start, 0, track, thread.tid, process.pid] += 1
    sql = f"select s.ts, s.dur, s.depth, k.name, t.tid, p.pid from slice s {OF_THREAD} where s.name = '{name}'"
    assert recording.rows(sql) == want


def test_gil_tracks_hold_nothing_else(recording: Recording) -> None:
    sql = f"select distinct s.name from slice s {OF_THREAD} where k.name glob 'GIL of *'"
    assert recording.rows(f"{sql} and s.category != 'block'").keys() <= {("holds GIL",), ("waits for GIL",)}
    names = [str(name) for (name,) in recording.rows(f"{sql} and s.category = 'block'")]
    assert all(name.startswith(("blocked: ", "wakes ", "woken by ")) for name in names)


def test_every_block_is_on_its_threads_track_between_what_it_did_with_the_gil(recording: Recording) -> None:
    want: Counter[tuple[object, ...]] = Counter()
    for process in recording.timeline.processes:
        for block in process.blocks:
            start, end, tid = int(block["start"]), int(block["end"]), process.threads[block["thread"]].tid
            want[process.pid, tid, start, end - start, int(block["lock"]) + 1, BlockEnd(block["ended"]).label] += 1
    assert recording.rows("select pid, tid, ts, dur, lock, ended from lock_waits") == want
    # The main thread starts the others, and awaits their ends.
    assert want or all(len(process.threads) == 1 for process in recording.timeline.processes)
    sql = f"select s.depth from slice s {OF_THREAD} where k.name glob 'GIL of *' and s.dur > 0"
    assert recording.rows(sql).keys() == {(0,)}


def test_each_process_has_its_groups_with_all_holds(recording: Recording) -> None:
    want: Rows = Counter()
    for process in recording.timeline.processes:
        for hold in process.holds:
            name = process.threads[hold["thread"]].name
            group = f"{spell(hold['gil'], process)} (pid {process.pid})"
            want[group, name, int(hold["start"]), int(hold["end"] - hold["start"])] += 1
    rows = recording.rows(
        "select g.name as grp, s.name, s.ts, s.dur from slice s join track k on s.track_id = k.id"
        " join track g on k.parent_id = g.id where k.name glob 'holder*'"
    )
    assert rows == want


def test_switch_requests_are_counted(recording: Recording) -> None:
    want: Rows = Counter()
    for process in recording.timeline.processes:
        for request in process.switch_requests:
            asker = process.threads[request["thread"]].name
            want[f"{spell(request['gil'], process)} (pid {process.pid})", int(request["time"]), asker] += 1
    rows = recording.rows(
        "select g.name as grp, s.ts, extract_arg(s.arg_set_id, 'debug.by') as asker from slice s"
        " join track k on s.track_id = k.id join track g on k.parent_id = g.id where k.name = 'switch requests'"
    )
    assert rows == want


def test_counter_is_the_number_of_waits_at_every_instant(recording: Recording) -> None:
    want: Rows = Counter()
    for process in recording.timeline.processes:
        for gil in range(process.gils):
            waits = process.waits[process.waits["gil"] == gil]
            starts, ends = np.sort(waits["start"]), np.sort(waits["end"])
            times = np.unique(np.concatenate(([process.start], starts, ends)))
            counts = np.searchsorted(starts, times, "right") - np.searchsorted(ends, times, "right")
            group = f"{spell(gil, process)} (pid {process.pid})"
            want.update((group, time, count) for time, count in zip(times.tolist(), counts.tolist(), strict=True))
    rows = recording.rows(
        "select g.name as grp, c.ts, cast(c.value as int) as n from counter c join track k on c.track_id = k.id"
        " join track g on k.parent_id = g.id where k.name = 'threads waiting for the GIL'"
    )
    assert rows == want


def test_an_arrow_leads_to_each_acquire_that_waited_for_another_threads_release(recording: Recording) -> None:
    want: Rows = Counter()
    for process in recording.timeline.processes:
        waited = {int(wait["hold"]): int(wait["start"]) for wait in process.waits if wait["hold"] >= 0}
        for gil in range(process.gils):
            for before, after in pairwise(np.flatnonzero(process.holds["gil"] == gil).tolist()):
                a, b = process.holds[before], process.holds[after]
                if a["thread"] != b["thread"] and waited.get(after, a["end"] + 1) <= a["end"]:
                    tids = [process.threads[hold["thread"]].tid for hold in (a, b)]
                    want[int(a["start"]), int(b["start"]), tids[0], tids[1]] += 1
    rows = recording.rows(
        "select a.ts as ats, b.ts as bts, at.tid as atid, bt.tid as btid from flow f"
        " join slice a on f.slice_out = a.id join slice b on f.slice_in = b.id"
        " join thread_track ak on a.track_id = ak.id join thread at on ak.utid = at.utid"
        " join thread_track bk on b.track_id = bk.id join thread bt on bk.utid = bt.utid"
        " where a.category = 'gil'"
    )
    assert rows == want


def test_every_thread_has_its_name(recording: Recording) -> None:
    for process in recording.timeline.processes:
        rows = recording.rows(f"select tid, t.name from thread t join process using (upid) where pid = {process.pid}")
        assert rows == Counter((thread.tid, thread.name) for thread in process.threads)
    names = {thread.name for process in recording.timeline.processes for thread in process.threads}
    assert "MainThread" in names


def test_cores_show_every_run(recording: Recording) -> None:
    want: Rows = Counter()
    for tid, run in traced_runs(recording.timeline):
        want[int(run["core"]), int(run["start"]), int(run["end"] - run["start"]), tid] += 1
    sql = "select cpu, ts, dur, tid from sched join thread using (utid) join process using (upid)"
    assert recording.rows(f"{sql} where pid in ({pids(recording.timeline)})") == want


def test_thread_state_runs_as_long_as_the_timeline(recording: Recording) -> None:
    want: Counter[int] = Counter()
    for tid, run in traced_runs(recording.timeline):
        want[tid] += int(run["end"] - run["start"])
    rows = recording.trace.query(
        "select tid, sum(dur) as running from thread_state join thread using (utid) join process using (upid)"
        f" where state = 'Running' and pid in ({pids(recording.timeline)}) group by tid"
    )
    assert {row["tid"]: row["running"] for row in rows} == dict(want)


def test_spans_are_on_their_threads(recording: Recording) -> None:
    want: Rows = Counter()
    for process in recording.timeline.processes:
        tids = {thread.tid for thread in process.threads}
        for one in process.spans:
            track = f"{one.collector} samples" if one.sampled else one.collector
            for start, end, tid, name, depth in one.spans.tolist():
                assert tid in tids
                want[track, one.names[name], start, end - start, depth, tid, process.pid] += 1
    rows = recording.rows(
        f"select k.name as track, s.name, s.ts, s.dur, s.depth, t.tid, p.pid from slice s {OF_THREAD}"
        " where s.category not in ('gil', 'block')"
    )
    assert rows == want
    ran = {report.name for report in recording.timeline.collectors if report.ok} - {"gil", "sched"}
    assert {str(track).removesuffix(" samples") for track, *_ in want} == ran


def test_a_gil_track_unfolds_to_its_threads_spans(recording: Recording) -> None:
    rows = recording.rows(
        "select k.name, up.name as up from thread_track k left join track up on k.parent_id = up.id"
        " where k.type = 'thread_track_event'"
    )
    for name, above in rows:
        if name in ("viztracer", "py-spy samples"):
            assert str(above).startswith("GIL of ")
        else:
            assert (str(name)[:7], above) == ("GIL of ", None)


def test_details_show_where_waiters_and_holders_stood(recording: Recording) -> None:
    expected: Rows = Counter()
    for process in recording.timeline.processes:
        sites = Sites(process)
        for wait, stack in zip(process.waits, sites.wait_stacks(), strict=True):
            frames = sites.stack(int(stack))
            if frames:
                expected[int(wait["start"]), process.threads[wait["thread"]].tid, frames[0]] += 1
    found: Rows = Counter()
    told = "extract_arg(s.arg_set_id, 'debug.stack')"
    sql = f"select s.ts, t.tid, {told} from slice s {OF_THREAD} where s.name = '{WAITS}'"
    for (ts, tid, text), count in recording.rows(sql).items():
        if text is not None:
            found[ts, tid, str(text).split(" < ")[0]] += count
    assert found == expected


def _waited_for_a_holder(process: Process) -> bool:
    """Whether somebody waited while somebody held the GIL: a wait may also pass while it is free."""
    holds = process.holds[process.holds["end"] > process.holds["start"]]
    after = np.searchsorted(holds["end"], process.waits["start"], "right")
    met = after < len(holds)
    return bool((holds["start"][after[met]] < process.waits["end"][met]).any())


def test_culprits_are_named_by_their_lines_while_others_wait(recording: Recording) -> None:
    culprits = recording.rows(
        "select distinct s.name from slice s join track k on s.track_id = k.id where k.name glob 'culprits*'"
    )
    assert bool(culprits) == any(_waited_for_a_holder(process) for process in recording.timeline.processes)
    # The own line, and in brackets what it led to in a library.
    line = re.compile(r"\S+ \([^)]+\)(?: \[\S+ \([^)]+\)\])?")
    assert all(line.fullmatch(str(name)) for (name,) in culprits if name != "no Python frame")


def test_each_wait_has_its_culprit_with_its_share_and_the_next_two(recording: Recording) -> None:
    want: Rows = Counter()
    for process in recording.timeline.processes:
        places = Places(process, relate(process))
        names = [*(thread.name for thread in process.threads), None]
        site, line = (of(places.culprit_stack).tolist() for of in (places.site, places.own_line))
        for at, wait in enumerate(process.waits):
            who = [names[thread] for thread in places.culprits.thread[at]]
            held = [int(ns) or None for ns in places.culprits.ns[at]]
            share = round(held[0] / int(wait["end"] - wait["start"]), 4) if held[0] else None
            where = [places.texts[number[at]] or None for number in (site, line)]
            known_by = KNOWN_BY[Source(places.culprit_source[at])] or None
            ids = int(wait["start"]), process.threads[wait["thread"]].tid
            holders = [part for pair in zip(who, held, strict=True) for part in pair]
            row = (*ids, *holders, share, *where, known_by)
            want[row] += 1
    found: Rows = Counter(
        tuple(row)
        for row in recording.trace.run(
            "select ts, tid, culprit, culprit_ns, second_culprit, second_culprit_ns, third_culprit, third_culprit_ns,"
            " culprit_share, culprit_site, culprit_own_line, culprit_known_by from gil_waits"
        ).rows
    )
    assert found == want


def test_each_hold_tells_its_lines_and_how_they_are_known(recording: Recording) -> None:
    want: Rows = Counter()
    for process in recording.timeline.processes:
        places = Places(process, relate(process))
        site, line = (of(places.hold_stack).tolist() for of in (places.site, places.own_line))
        for at, hold in enumerate(process.holds):
            where = [places.texts[number[at]] or None for number in (site, line)]
            known_by = KNOWN_BY[Source(places.hold_source[at])] or None
            row = (int(hold["start"]), process.threads[hold["thread"]].tid, *where, known_by)
            want[row] += 1
    sql = "select ts, tid, site, own_line, known_by from gil_holds"
    assert Counter(tuple(row) for row in recording.trace.run(sql).rows) == want


def test_no_line_is_numbered_0(recording: Recording) -> None:
    found = recording.rows(
        "select display_value from args where display_value glob '*:0)*'"
        " union all select name from slice where name glob '*:0)*'"
    )
    assert found == Counter()

"""The scheduling tracks: runs are found again per core and per thread, and the time between them has its state."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from giltrace.exporters.perfetto import sched
from giltrace.exporters.perfetto import trace as perfetto
from giltrace.timeline.model import Process, Timeline
from giltrace.views.trace_processor import TraceProcessor, unavailable
from tests.synthetic import make_process, make_timeline

_WHY_NOT = unavailable()
pytestmark = pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT))

TIMELINE = make_timeline(
    make_process(100, threads=5, seed=2), make_process(1 << 21, gils=2, first_core=1, seed=3), others=6
)


def load(timeline: Timeline, folder: Path) -> TraceProcessor:
    path = folder / "trace.pftrace"
    perfetto.write(timeline, path)
    return TraceProcessor(path)


def all_runs(timeline: Timeline) -> Counter[tuple[object, ...]]:
    runs: Counter[tuple[object, ...]] = Counter()
    for process in timeline.processes:
        for run in process.runs:
            length = int(run["end"] - run["start"])
            runs[int(run["start"]), length, int(run["core"]), process.threads[run["thread"]].tid] += 1
    for run in timeline.other_runs:
        tid = timeline.other_tasks[run["thread"]].tid
        runs[int(run["start"]), int(run["end"] - run["start"]), int(run["core"]), tid] += 1
    return runs


@pytest.mark.parametrize("per_bundle", [1 << 14, 5], ids=["one bundle", "bundles of 5"])
@pytest.mark.parametrize("table", ["sched", "thread_state"])
def test_every_run_is_found_again(table: str, per_bundle: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sched, "_PER_BUNDLE", per_bundle)
    running = "where state = 'Running'" if table == "thread_state" else ""
    rows = load(TIMELINE, tmp_path).query(
        f"select ts, dur, cpu, tid from (select * from {table} {running}) join thread using (utid) where not is_idle"
    )
    assert Counter(tuple(row.values()) for row in rows) == all_runs(TIMELINE)


def test_between_runs_a_thread_is_runnable_if_preempted_and_asleep_if_not(tmp_path: Path) -> None:
    trace = load(TIMELINE, tmp_path)
    process: Process = TIMELINE.processes[0]
    for number, thread in enumerate(process.threads):
        runs = process.runs[process.runs["thread"] == number]
        want = [
            (int(a["end"]), int(b["start"] - a["end"]), "R" if a["preempted"] else "S")
            for a, b in pairwise(runs)
            if b["start"] > a["end"]
        ]
        rows = trace.query(
            "select ts, dur, state from thread_state join thread using (utid)"
            f" where tid = {thread.tid} and state != 'Running' order by ts"
        )
        assert len(want) > 5
        assert [tuple(row.values()) for row in rows][: len(want)] == want


def test_a_thread_that_ended_is_dead_after_its_last_run(tmp_path: Path) -> None:
    process = TIMELINE.processes[0]
    last = int(process.runs[process.runs["thread"] == 1]["end"].max())
    threads = list(process.threads)
    threads[1] = threads[1]._replace(end=last)
    timeline = make_timeline(replace(process, threads=tuple(threads)))
    rows = load(timeline, tmp_path).query(
        f"select ts, state from thread_state join thread using (utid) where tid = {threads[1].tid}"
        " order by ts desc limit 1"
    )
    assert rows == [{"ts": last, "state": "X"}]


def test_a_core_without_a_run_is_idle(tmp_path: Path) -> None:
    rows = load(TIMELINE, tmp_path).query(
        "select ts, dur from sched join thread using (utid) where is_idle and cpu = 0 order by ts"
    )
    runs = np.sort(TIMELINE.processes[0].runs, order="start")
    gaps = [(int(a["end"]), int(b["start"] - a["end"])) for a, b in pairwise(runs)]
    assert [tuple(row.values()) for row in rows][:-1] == [gap for gap in gaps if gap[1] > 0]


def test_other_tasks_have_their_names_and_processes(tmp_path: Path) -> None:
    rows = load(TIMELINE, tmp_path).query(
        "select t.tid, t.name, p.pid from thread t join process p using (upid) where p.pid between 900000 and 999999"
    )
    assert {tuple(row.values()) for row in rows} == {(task.tid, task.name, task.pid) for task in TIMELINE.other_tasks}


def test_a_core_that_was_idle_for_a_minute_keeps_exact_times(tmp_path: Path) -> None:
    process = make_process(threads=1, holds=2)
    process.runs["start"][-1] += 60_000_000_000
    process.runs["end"][-1] += 60_000_000_000
    timeline = make_timeline(process)
    rows = load(timeline, tmp_path).query(
        "select ts, dur, cpu, tid from sched join thread using (utid) where not is_idle"
    )
    assert Counter(tuple(row.values()) for row in rows) == all_runs(timeline)

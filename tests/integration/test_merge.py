"""`giltrace merge` with what viztracer itself wrote of a program that was recorded."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giltrace.recording.merged import Merged
from giltrace.timeline.load import load
from giltrace.timeline.model import Timeline

PROGRAM = """
import threading, time
def step(turn):
    return sum(range(20_000))
def work(mine, others):
    for turn in range(60):
        mine.acquire()
        step(turn)
        others.release()
first, second = threading.Semaphore(1), threading.Semaphore(0)
threads = [threading.Thread(target=work, args=pair) for pair in ((first, second), (second, first))]
for one in threads:
    one.start()
for one in threads:
    one.join()
"""


@dataclass(frozen=True)
class Run:
    """A recording, and viztracer's file of the same run."""

    name: Path
    file: Path

    @property
    def timeline(self) -> Timeline:
        return load(self.name.with_suffix(".giltrace"))

    def merge(self, *words: object) -> subprocess.CompletedProcess[str]:
        return giltrace("merge", self.name, *words)

    def merged(self, label: str) -> Merged:
        (found,) = (one for one in self.timeline.merged if one.label == label)
        return found


def giltrace(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "giltrace", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("merge")
    (folder / "program.py").write_text(PROGRAM)
    run = Run(folder / "x", folder / "viztracer.json")
    tracer = ("-m", "viztracer", "--quiet", "-o", run.file, folder / "program.py")
    done = giltrace("record", "--light", "--with", "sched", "-o", run.name, "--", sys.executable, *tracer)
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture
def run(recorded: Run, tmp_path: Path) -> Run:
    shutil.copytree(recorded.name.with_suffix(".giltrace"), tmp_path / "x.giltrace")
    return Run(tmp_path / "x", recorded.file)


def test_viztracers_spans_begin_while_their_threads_have_the_gil(run: Run) -> None:
    done = run.merge(run.file)
    assert done.returncode == 0, done.stderr
    assert "CLOCK_MONOTONIC, error at most" in done.stderr.splitlines()[-1]
    timeline, merged = run.timeline, run.merged("viztracer")
    (process,) = timeline.processes
    seen = 0
    for number, track in enumerate(merged.tracks):
        (thread,) = (at for at, one in enumerate(process.threads) if one.tid == track.tid)
        holds = process.holds[process.holds["thread"] == thread]
        starts = merged.rows["start"][merged.rows["track"] == number]
        at = np.searchsorted(holds["start"], starts + merged.clock_error_ns, "right") - 1
        assert (at >= 0).all()
        assert (holds["end"][at] >= starts - merged.clock_error_ns).all()
        seen += len(starts)
    assert seen > 200
    steps = [row for row in merged.rows if merged.names[row["name"]].startswith("step (")]
    assert len(steps) == 120


def test_a_clock_that_is_not_said_is_found_within_the_error_that_is_stated(run: Run, tmp_path: Path) -> None:
    if not all(process.has_sched for process in run.timeline.processes):
        pytest.skip("no context switches were recorded")
    content: dict[str, Any] = json.loads(run.file.read_text())
    events = [event for event in content["traceEvents"] if event["ph"] == "X"]
    first = min(event["ts"] for event in events)
    moved = [{**event, "ts": event["ts"] - first} for event in events]
    (tmp_path / "other.json").write_text(json.dumps(moved))
    for words in ((run.file,), (tmp_path / "other.json", "--label", "other")):
        done = run.merge(*words)
        assert done.returncode == 0, done.stderr
    known, found = run.merged("viztracer"), run.merged("other")
    assert found.clock == "found by when its threads ran"
    error = int(found.rows["start"].min()) - int(known.rows["start"].min())
    assert abs(error) <= found.clock_error_ns
    # Both are in one trace, and merging again replaces.
    sql = "select source, count() as n from gil_spans group by source order by source"
    answer = json.loads(giltrace("query", run.name, sql, "--json").stdout)
    assert answer == [{"source": "other", "n": len(found.rows)}, {"source": "viztracer", "n": len(known.rows)}]
    assert run.merge(run.file).returncode == 0
    assert [one.label for one in run.timeline.merged] == ["other", "viztracer"]


def test_another_runs_file_is_refused_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    content = {"traceEvents": [{"ph": "X", "name": "f", "pid": 1, "tid": 1, "ts": 5, "dur": 1}]}
    (tmp_path / "other.json").write_text(json.dumps({**content, "viztracer_metadata": {}}))
    done = run.merge(tmp_path / "other.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("giltrace: error: ")
    assert "no span of it falls into the recording" in done.stderr
    assert len(done.stderr.splitlines()) == 2
    assert not run.timeline.merged
    assert not run.name.with_suffix(".pftrace").exists()

"""`giltrace.ray`: what comes of recording a cluster of this machine in one way or another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import giltrace
from giltrace.recording.fleet import read_fleet
from giltrace.timeline.model import Timeline
from tests.fleets import Ran, recorded

pytestmark = [pytest.mark.needs("ray"), pytest.mark.timeout(300)]


def ran(way: str, folder: Path) -> Ran:
    return recorded("ray_fleet.py", way, folder, {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"})


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return ran("planted", tmp_path_factory.mktemp("planted"))


def spans(timeline: Timeline) -> list[tuple[int, str, int, int, int]]:
    """The pid, kind, tid, start and end of all tasks; tid 0 for coroutines."""
    (merged,) = timeline.merged
    tracks = [merged.tracks[row["track"]] for row in merged.rows]
    kinds = [merged.categories[row["category"]] for row in merged.rows]
    times = [(int(row["start"]), int(row["end"])) for row in merged.rows]
    return [(track.pid, kind, track.tid, *time) for track, kind, time in zip(tracks, kinds, times, strict=True)]


def test_the_report_finds_the_planted_convoy(planted: Ran) -> None:
    report = giltrace.load(planted.name).report()
    assert report.fleet is not None
    assert report.fleet.summary.startswith("Tasks 'Planted.convoy' lost ")
    assert "while tasks 'Planted.hog' held it, most at Planted.hog (ray_fleet.py:" in report.fleet.summary
    assert report.fleet.summary.endswith("on 2 of 3 workers.")
    assert "actors without max_concurrency" in report.fleet.advice
    kinds = {row.prefix: row for row in report.tasks if row.prefix}
    assert {kind: row.tasks for kind, row in kinds.items()} == {
        "Planted.convoy": 2,
        "Planted.hog": 2,
        "Planted.steps": 1,
    }
    # How many of its steps wait is for the cores to say: where `hog` has none, the GIL is free.
    assert kinds["Planted.convoy"].waited_ns > kinds["Planted.hog"].waited_ns
    first = next(row for row in report.task_blame if row.prefix == "Planted.convoy")
    assert (first.cause, first.culprit_prefix, first.processes) == ("gil", "Planted.hog", 2)
    assert first.victim.own_function.endswith("convoy")
    assert sorted(row.own_pid for row in report.fleet.workers if row.tasks) == planted.told["pids"]
    assert all(0 < row.clock_error_ns < 1_000_000_000 for row in report.fleet.workers)


def test_coroutines_are_beside_the_threads_and_have_rays_id(planted: Ran) -> None:
    timeline = planted.timeline
    (merged,) = timeline.merged
    assert merged.label == "ray"
    ((_, kind, _, start, end),) = [row for row in spans(timeline) if not row[2]]
    assert kind == "Awaits.waits"
    assert end - start >= 10_000_000
    assert f"Awaits.waits-{planted.told['task']}" in merged.names


def test_every_invariant_holds_and_nothing_is_lost(planted: Ran) -> None:
    timeline = planted.timeline
    assert timeline.violations == ()
    assert timeline.lost == 0
    assert timeline.damage == ()
    assert not timeline.unfinished


def test_a_worker_that_is_started_meanwhile_is_recorded_from_its_first_task(tmp_path: Path) -> None:
    done = ran("crowd", tmp_path)
    report = giltrace.load(done.name).report()
    assert report.fleet is not None
    assert [row.own_pid for row in report.fleet.workers if row.tasks] == [done.told["pid"]]
    (row,) = (row for row in report.tasks if row.prefix)
    assert (row.prefix, row.tasks) == ("crowded", 1)
    assert row.waits
    first = next(row for row in report.task_blame if row.prefix == "crowded")
    assert (first.cause, first.culprit_prefix) == ("gil", "")
    assert first.culprit is not None
    assert first.culprit.own_function.endswith("spin")


def test_a_worker_that_is_killed_costs_only_itself(tmp_path: Path) -> None:
    done = ran("killed", tmp_path)
    timeline = done.timeline
    parts = read_fleet(done.name.with_name("out.giltrace")).parts
    told = {part.pid: part.told for part in parts if part.pid in done.told["pids"]}
    victim = done.told["victim"]
    survivor = next(pid for pid in done.told["pids"] if pid != victim)
    assert told == {victim: "it ended during the recording: what is here goes up to then", survivor: ""}
    found = [pid for pid, kind, *_ in spans(timeline) if kind == "Brief.brief"]
    assert (found.count(victim), found.count(survivor)) == (20, 40)
    assert all(len(process.holds) for process in timeline.processes if process.pid in told)
    assert timeline.violations == ()


def test_a_task_that_runs_all_the_time_is_there(tmp_path: Path) -> None:
    done = ran("before", tmp_path)
    (merged,) = done.timeline.merged
    assert f"Planted.hog-{done.told['task']}" in merged.names
    (row,) = (row for row in spans(done.timeline) if row[1] == "Planted.hog")
    assert row[4] - row[3] >= 200_000_000


def test_a_cluster_is_recorded_once_at_a_time(tmp_path: Path) -> None:
    done = ran("twice", tmp_path)
    assert "this process is traced already\n  end the other trace first" in done.told["refused"]
    assert not done.told["left"]
    assert [kind for _, kind, *_ in spans(done.timeline)] == ["Brief.brief"]


def test_workers_that_were_not_prepared_are_told_with_a_remedy(tmp_path: Path) -> None:
    done = ran("unprepared", tmp_path)
    assert done.told["refused"] == (
        "1 worker of Ray cannot be recorded, not having been prepared for it, and there are no others\n"
        "  start Ray's job with ray.init(runtime_env=giltrace.ray.prepared())"
    )
    assert not done.name.with_name("out.giltrace").exists()


def test_an_environment_keeps_what_it_has() -> None:
    env = giltrace.ray.prepared({"env_vars": {"A": "1"}})
    assert env == {"env_vars": {"A": "1"}, "worker_process_setup_hook": "giltrace.integrations.ray.worker.ready"}
    assert giltrace.ray.prepared(env) == env
    with pytest.raises(giltrace.GiltraceError, match="has a worker_process_setup_hook already"):
        giltrace.ray.prepared({"worker_process_setup_hook": "mine.setup"})
    with pytest.raises(giltrace.GiltraceError, match="connected to no Ray cluster"):
        giltrace.ray.record()

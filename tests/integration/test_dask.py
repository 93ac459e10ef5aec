"""`giltrace.dask`: what comes of recording a cluster of this machine in one way or another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import giltrace
from giltrace.analysis.site import frame_text
from giltrace.recording.fleet import read_fleet
from giltrace.timeline.model import Timeline
from tests.dask_clusters import command, environment
from tests.fleets import Ran, recorded

pytestmark = [pytest.mark.needs("distributed"), pytest.mark.needs("pyarrow"), pytest.mark.timeout(300)]

#: The clock of thread and scheduler are read one after the other, by threads that may be waiting for a core.
NEAR_NS = 200_000_000


def ran(way: str, folder: Path) -> Ran:
    return recorded("dask_fleet.py", way, folder, environment(folder))


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return ran("planted", tmp_path_factory.mktemp("planted"))


def spans(timeline: Timeline) -> list[tuple[str, str, int, int, int]]:
    """The worker, key, tid, start and end of all tasks that ran on threads."""
    workers = {process.pid: process.member.address for process in timeline.processes if process.member}
    (merged,) = timeline.merged
    found = []
    for row in merged.rows:
        track = merged.tracks[row["track"]]
        if track.tid:
            name = merged.names[row["name"]]
            found.append((workers[track.pid], name, track.tid, int(row["start"]), int(row["end"])))
    return found


def test_the_report_finds_the_planted_convoy(planted: Ran) -> None:
    report = giltrace.load(planted.name).report()
    assert report.fleet is not None
    assert report.fleet.summary.startswith("Tasks 'convoy' lost ")
    assert "while tasks 'hog' held it, most at hog (dask_tasks.py:" in report.fleet.summary
    assert report.fleet.summary.endswith("on 2 of 2 workers.")
    kinds = {row.prefix: row for row in report.tasks}
    assert {name: row.tasks for name, row in kinds.items() if name} == {"convoy": 2, "hog": 2}
    # How often a step has to wait, and for how much of its time, depends on the cores that there are.
    assert 0 < kinds["convoy"].waited_ns < kinds["convoy"].ns
    assert kinds["convoy"].waits > 0
    first = next(row for row in report.task_blame if row.prefix == "convoy")
    assert (first.cause, first.culprit_prefix, first.processes) == ("gil", "hog", 2)
    assert first.victim.function == "convoy"
    assert {row.tasks for row in report.fleet.workers} == {2}


def test_its_tasks_are_those_of_the_task_stream(planted: Ran) -> None:
    timeline = planted.timeline
    found = {(worker, key): (tid, start, end) for worker, key, tid, start, end in spans(timeline)}
    on_threads = [row for row in planted.told["stream"] if not row[1].startswith("waits-")]
    assert {(worker, key) for worker, key, *_ in on_threads} == set(found)
    threads: dict[tuple[str, int], set[int]] = {}
    for worker, key, thread, begin, stop in on_threads:
        tid, start, end = found[worker, key]
        threads.setdefault((worker, thread), set()).add(tid)
        delay = planted.told["delays"][worker]
        for stamp, instant in ((begin, start), (stop, end)):
            assert abs((stamp - delay) * 1e9 - instant - timeline.realtime_offset) < NEAR_NS
    assert all(len(tids) == 1 for tids in threads.values())
    assert {tid for tids in threads.values() for tid in tids} <= {
        thread.tid for process in timeline.processes for thread in process.threads
    }


def test_coroutines_are_beside_the_threads(planted: Ran) -> None:
    (merged,) = planted.timeline.merged
    rows = [row for row in merged.rows if not merged.tracks[row["track"]].tid]
    assert sorted(merged.names[row["name"]].rpartition("-")[2] for row in rows) == ["0", "1", "2", "3"]
    assert all(row["end"] - row["start"] >= 10_000_000 for row in rows)


def test_the_workers_are_left_as_they_were(planted: Ran) -> None:
    assert set(planted.told["restored"].values()) == {"dict"}
    assert not any("giltrace" in name for names in planted.told["plugins"].values() for name in names)


def test_every_invariant_holds_and_nothing_is_lost(planted: Ran) -> None:
    timeline = planted.timeline
    assert timeline.violations == ()
    assert timeline.lost == 0
    assert timeline.damage == ()
    assert not timeline.unfinished


def queried(*words: str, folder: Path) -> list[dict[str, Any]]:
    told = command("query", *words, "--json", folder=folder)
    assert told.returncode == 0, told.stderr
    rows: list[dict[str, Any]] = json.loads(told.stdout)
    return rows


def test_every_command_reads_it(planted: Ran, tmp_path: Path) -> None:
    name = str(planted.name)
    told = command("report", name, folder=tmp_path)
    assert told.stdout.startswith("2 workers on 1 host\n  Tasks 'convoy' lost ")
    assert max(map(len, told.stdout.splitlines())) <= 80
    data = json.loads(command("report", name, "--json", folder=tmp_path).stdout)
    assert data["fleet"]["summary"].startswith("Tasks 'convoy'")
    assert [row["prefix"] for row in data["tasks"] if row["prefix"]] == ["convoy", "hog"]
    page = tmp_path / "page.html"
    command("report", name, "--html", str(page), folder=tmp_path)
    assert '"prefix":"convoy"' in page.read_text()
    asked = (
        "select category, count() as n, sum(waited) as ns from gil_spans where source = 'dask' group by 1 order by 3"
    )
    rows = json.loads(command("query", name, "--json", asked, folder=tmp_path).stdout)
    kinds = {row["prefix"]: row for row in data["tasks"]}
    of_threads = [row for row in rows if row["category"] != "waits"]
    assert [(row["category"], row["n"]) for row in of_threads] == [("hog", 2), ("convoy", 2)]
    assert [row["ns"] for row in of_threads] == [kinds["hog"]["waited_ns"], kinds["convoy"]["waited_ns"]]


@pytest.mark.needs("duckdb")
def test_sql_over_the_data_set_says_the_same(planted: Ran, tmp_path: Path) -> None:
    asked = "select prefix, sum(waited)::bigint as ns, count(*) as n from tasks group by all order by ns desc"
    rows = json.loads(
        command("query", str(planted.name), "--engine", "duckdb", "--json", asked, folder=tmp_path).stdout
    )
    report = giltrace.load(planted.name).report()
    kinds = [(row.prefix, row.waited_ns, row.tasks) for row in report.tasks if row.prefix]
    assert [(row["prefix"], row["ns"], row["n"]) for row in rows] == kinds
    asked = "select sum(duration)::bigint as ns from task_blame"
    (row,) = json.loads(
        command("query", str(planted.name), "--engine", "duckdb", "--json", asked, folder=tmp_path).stdout
    )
    assert row["ns"] == sum(one.ns for process in report.processes for one in process.task_blame)


def test_locks_between_tasks_are_told(tmp_path: Path) -> None:
    report = giltrace.load(ran("locks", tmp_path).name).report()
    assert report.fleet is not None
    assert report.fleet.summary.startswith("Tasks 'blocked' lost ")
    row = next(row for row in report.task_blame if row.prefix == "blocked" and row.cause == "lock")
    assert (row.culprit_prefix, row.count, row.processes) == ("keeps", 2, 2)
    assert row.culprit is not None
    assert (row.victim.own_function, row.culprit.own_function) == ("blocked", "keeps")


def test_a_worker_that_is_killed_costs_only_itself_and_one_that_joins_is_there(tmp_path: Path) -> None:
    done = ran("killed", tmp_path)
    timeline = done.timeline
    fleet = read_fleet(done.name.with_name("out.giltrace"))
    dead = [part for part in fleet.parts if part.told]
    assert [part.pid for part in dead] == [done.told["victim"]]
    assert dead[0].told == "it ended during the recording: what is here goes up to then"
    assert {part.pid for part in fleet.parts} == {*done.told["pids"], *done.told["after"]}
    assert len(fleet.parts) == 3
    by_worker = {process.pid: 0 for process in timeline.processes}
    pids = {process.member.address: process.pid for process in timeline.processes if process.member}
    for worker, *_ in spans(timeline):
        by_worker[pids[worker]] += 1
    assert by_worker == dict.fromkeys(by_worker, 20)
    assert all(len(process.holds) for process in timeline.processes)
    assert timeline.violations == ()


def test_a_cluster_is_recorded_once_at_a_time(tmp_path: Path) -> None:
    done = ran("twice", tmp_path)
    assert "this process is traced already\n  end the other trace first" in done.told["refused"]
    assert not done.told["left"]
    assert len(done.timeline.processes) == 2


def test_the_clusters_blame_is_that_of_the_report(tmp_path: Path) -> None:
    done = ran("blames", tmp_path)
    report = giltrace.load(done.name).report()
    wanted: dict[tuple[str, ...], list[int]] = {}
    for process in report.processes:
        for row in process.blame:
            sides = [(site.thread, own(site)) for site in (row.victim, row.culprit)]
            sums = wanted.setdefault((*sides[0], *sides[1]), [0, 0])
            sums[0], sums[1] = sums[0] + row.ns, max(sums[1], row.max_ns)
    columns = done.told["columns"]
    assert columns == ["victim", "victim_own_line", "culprit", "culprit_own_line", "waits", "duration", "max_duration"]
    assert {tuple(row[:4]): [row[5], row[6]] for row in done.told["rows"]} == wanted
    durations = [row[5] for row in done.told["rows"]]
    assert durations == sorted(durations, reverse=True)
    assert sum(row[2] for row in done.told["lines"]) == sum(durations)


def own(site: Any) -> str:
    """A line as tables have it."""
    frame = (site.own_function, site.own_file, site.own_line)
    return frame_text(frame if site.own_function else (site.function, site.file, site.line))

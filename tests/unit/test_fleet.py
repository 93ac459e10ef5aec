"""A recording of several machines: its parts on one clock, how far that is wrong, and what of it may be missing."""

from __future__ import annotations

import json
import random
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from giltrace.analysis.fleet import find_fleet
from giltrace.analysis.report import analyse
from giltrace.analysis.selection import Selection, select
from giltrace.errors import RecordingError
from giltrace.recording.fleet import FILE, Fleet, Part, part_name, read_fleet, write_fleet
from giltrace.recording.meta import Meta
from giltrace.reports.console import console
from giltrace.reports.terminal import print_report
from giltrace.timeline.fleet import join
from giltrace.timeline.invariants import check
from giltrace.timeline.load import load
from giltrace.timeline.model import Process, Timeline
from tests.synthetic import START, make_process, make_timeline

MS = 1_000_000


def part(number: int, host: str, offset_ns: int = 0, **other: Any) -> Part:
    given = {"worker": f"w{number}", "address": f"tcp://{host}:1", "pid": 4242, "clock": host, "error_ns": 7}
    return Part(part_name(number), host=host, offset_ns=offset_ns, **{**given, **other})


def fleet(*parts: tuple[Part, Process]) -> Timeline:
    whole = make_timeline()
    return join(whole, [(one, make_timeline(process)) for one, process in parts])


def test_times_are_moved_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    process = make_process(spans=30)
    there = fleet((part(0, "a"), process)).processes[0]
    moved = fleet((part(0, "a", 5 * MS), process)).processes[0]
    told = 0
    for one in fields(Process):
        before, after = getattr(there, one.name), getattr(moved, one.name)
        if isinstance(before, np.ndarray) and before.dtype.names and len(before):
            for name in before.dtype.names:
                by = 5 * MS if name in ("start", "end", "time") else 0
                assert (after[name].astype(np.int64) - before[name].astype(np.int64) == by).all(), (one.name, name)
            told += 1
    assert told >= 4
    assert [thread.start for thread in moved.threads] == [START + 5 * MS] * 4
    assert (moved.start, moved.end) == (there.start + 5 * MS, there.end + 5 * MS)
    assert (moved.spans[0].spans["start"] - there.spans[0].spans["start"] == 5 * MS).all()
    assert check(moved) == check(there)


def test_it_says_of_a_process_what_that_says_alone() -> None:
    process = make_process(seed=3)
    alone = analyse(make_timeline(process)).processes[0]
    timeline = fleet((part(0, "a", -77 * MS), make_process(seed=2)), (part(1, "b", 9 * MS), process))
    told = analyse(timeline).processes[1]
    for name in ("blame", "victims", "hogs", "gils", "wait_decomposition_ns", "what_if", "convoys"):
        assert str(getattr(told, name)).replace(str(told.pid + 3), "4245") == str(getattr(alone, name)), name


def test_equal_ids_of_other_machines_are_told_apart() -> None:
    timeline = fleet(*((part(number, host), make_process()) for number, host in enumerate("abb")))
    tids = [thread.tid for process in timeline.processes for thread in process.threads]
    assert len(set(tids)) == len(tids) == 12
    assert [process.pid for process in timeline.processes] == [process.threads[0].tid for process in timeline.processes]
    assert timeline.processes[0].pid == 4242
    assert [process.member.pid for process in timeline.processes if process.member] == [4242] * 3
    assert [process.member.host for process in timeline.processes if process.member] == [0, 1, 1]
    assert [host.name for host in timeline.hosts] == ["a", "b"]
    assert timeline.processes[1].cmdline.startswith("w1@b: /usr/bin/python3")


def test_ids_that_differ_stay_what_they_are() -> None:
    timeline = fleet((part(0, "a"), make_process()), (part(1, "a", pid=9000), make_process(pid=9000)))
    assert [process.pid for process in timeline.processes] == [4242, 9000]


def test_the_workers_of_a_host_are_chosen_by_it() -> None:
    timeline = fleet((part(0, "a"), make_process()), (part(1, "b"), make_process()), (part(2, "b"), make_process()))
    (chosen,) = select([timeline], Selection.of(process="*@b:*"))
    assert [process.member.worker for process in chosen.processes if process.member] == ["w1", "w2"]


def test_the_report_tells_of_hosts_and_workers(capsys: pytest.CaptureFixture[str]) -> None:
    timeline = fleet((part(0, "a"), make_process()), (part(1, "b", error_ns=300_000), make_process()))
    report = analyse(timeline)
    assert report.fleet is not None
    assert [(row.host, row.worker, row.own_pid, row.clock_error_ns) for row in report.fleet.workers] == [
        ("a", "w0", 4242, 7),
        ("b", "w1", 4242, 300_000),
    ]
    print_report(report, console(width=80))
    told = capsys.readouterr().out
    assert told.startswith("2 workers on 2 hosts\n")
    assert "300 us" in told
    assert max(map(len, told.splitlines())) <= 80
    assert find_fleet(make_timeline(make_process()), (), None) is None  # type: ignore[arg-type]


def test_what_is_missing_is_told() -> None:
    dead = part(0, "a", told="it ended during the recording")
    timeline = fleet((dead, make_process()), (part(1, "b"), make_process()))
    assert timeline.damage == ("worker w0 on a: it ended during the recording",)
    assert "worker w0 on a: it ended during the recording" in timeline.remarks


def recording(path: Path, *parts: Part, told: tuple[str, ...] = ()) -> Path:
    path.mkdir()
    meta = Meta.begin("0", [])
    meta.state, meta.end_ns = "complete", meta.start_ns + 1
    meta.write(path)
    for one in parts:
        (path / one.folder).mkdir()
        meta.write(path / one.folder)
    write_fleet(path, Fleet(parts, told))
    return path


def test_parts_are_read_as_they_were_written(tmp_path: Path) -> None:
    parts = (part(0, "a", -5), part(1, "b\x1b[31m", told="half of it"))
    folder = recording(tmp_path / "x.giltrace", *parts, told=("nothing of w3",))
    read = read_fleet(folder)
    assert read.parts[0] == parts[0]
    assert read.parts[1].host == "b\\x1b[31m"
    assert read.told == ("nothing of w3",)
    assert read_fleet(folder / "part-000") == Fleet()


def test_a_part_that_is_gone_costs_itself_only(tmp_path: Path) -> None:
    folder = recording(tmp_path / "x.giltrace", part(0, "a"), part(1, "b"), told=("nothing of w3",))
    (folder / "part-000" / "meta.json").unlink()
    timeline = load(folder)
    assert timeline.damage[0] == "nothing of w3"
    assert timeline.damage[1].startswith("worker w0 on a: ")
    assert timeline.damage[1].endswith("left out")
    assert [host.name for host in timeline.hosts] == ["b"]
    assert load(folder, parts=["part-001"]).hosts == timeline.hosts


def test_a_part_that_is_said_to_be_of_another_time_is_left_out(tmp_path: Path) -> None:
    far = 40 * 86_400 * 10**9
    folder = recording(tmp_path / "x.giltrace", part(0, "a", far), part(1, "b", -far), part(2, "c", 10**9))
    timeline = load(folder)
    assert [host.name for host in timeline.hosts] == ["c"]
    assert timeline.damage[0] == "worker w0 on a: its clock is not where it is said to be: left out"


WRONG = {
    "folder": "../../etc",
    "worker": 5,
    "address": None,
    "host": ["a"],
    "pid": 0,
    "clock": 1.5,
    "offset_ns": 1 << 61,
    "error_ns": -1,
    "told": {},
}


@pytest.mark.parametrize("name", WRONG)
def test_what_makes_no_sense_is_refused(name: str, tmp_path: Path) -> None:
    folder = recording(tmp_path / "x.giltrace", part(0, "a"))
    data = json.loads((folder / FILE).read_text())
    data["parts"][0][name] = WRONG[name]
    (folder / FILE).write_text(json.dumps(data))
    with pytest.raises(RecordingError, match=f"the {name} of a part makes no sense"):
        load(folder)


NO_FLEET = ("{", "[]", "[" * 100_000, '{"version": 9, "parts": []}', '{"version": 1, "parts": [1]}')


@pytest.mark.parametrize("text", NO_FLEET, ids=range(len(NO_FLEET)))
def test_what_is_no_description_is_refused(text: str, tmp_path: Path) -> None:
    folder = recording(tmp_path / "x.giltrace", part(0, "a"))
    (folder / FILE).write_text(text)
    with pytest.raises(RecordingError):
        load(folder)


def test_round_trips_bound_the_clocks_distance() -> None:
    from giltrace.integrations.fleet import cluster

    for seed in range(200):
        chance = random.Random(seed)
        truth = chance.randrange(-(10**15), 10**15)
        readings, shortest = [], 1 << 60
        for _ in range(24):
            before = chance.randrange(10**9)
            there, back = (chance.randrange(1, 10**7) for _ in range(2))
            readings.append((before, before + there - truth, before + there + back))
            shortest = min(shortest, there + back)
        found = cluster.bounds(readings)
        assert abs(found.offset_ns - truth) <= found.error_ns <= shortest // 2 + 1
        drifted = found.also(cluster.Bounds(found.low + 900, found.high + 1_000))
        assert abs(drifted.offset_ns - truth) <= drifted.error_ns
        assert abs(drifted.offset_ns - (truth + 950)) <= drifted.error_ns + 50


@pytest.mark.needs("distributed")
def test_tasks_are_read_from_what_threads_noted() -> None:
    from giltrace.integrations.dask import DaskCluster
    from giltrace.integrations.fleet import tasks

    notes: list[tuple[str, int, int, str]] = [
        ("before", 100, 7, "old-1"),
        ("runs", 110, 0, "x-1"),
        ("begin", 120, 8, "x-1"),
        ("runs", 125, 0, "co-1"),
        ("after", 130, 0, "old-1"),
        ("end", 140, 8, ""),
        ("begin", 150, 7, "y-1"),
        ("stops", 160, 0, "co-1"),
        ("begin", 170, 8, "z-1"),
        ("begin", 180, 8, "z-2"),
    ]
    lines = [json.dumps(note) for note in notes] + ['["end", 19', "null", '["end", "x", 8, ""]']
    assert tasks.read_tasks(lines, 90, 200) == [
        (90, 130, 7, "old-1"),
        (120, 140, 8, "x-1"),
        (125, 160, 0, "co-1"),
        (150, 200, 7, "y-1"),
        (170, 180, 8, "z-1"),
        (180, 200, 8, "z-2"),
    ]
    assert DaskCluster.prefix_of("('inc-map-0123456789abcdef0123456789abcdef', 4)") == "inc-map"

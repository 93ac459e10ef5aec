"""The reader of raw perf records against records made by hand."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from giltrace.recording.sched import count_records, read_ends, read_sched

OUT, PREEMPT = 1 << 13, 1 << 14
EXEC = 1 << 13


def record(kind: int, time: int, pid: int, tid: int, *, cpu: int = 0, misc: int = 0, body: bytes = b"") -> bytes:
    trailer = struct.pack("<IIQII", pid, tid, time, cpu, 0)
    return struct.pack("<IHH", kind, misc, 8 + len(body) + len(trailer)) + body + trailer


def switch(time: int, tid: int, *, on: bool, cpu: int = 0, preempted: bool = False, pid: int = 100) -> bytes:
    misc = (0 if on else OUT) | (PREEMPT if preempted else 0)
    return record(14, time, pid, tid, cpu=cpu, misc=misc)


def fork(time: int, tid: int, parent: int, pid: int = 100) -> bytes:
    return record(7, time, pid, parent, body=struct.pack("<IIIIQ", pid, pid, tid, parent, time))


def end(time: int, tid: int, cpu: int = 0, pid: int = 100) -> bytes:
    return record(4, time, pid, tid, cpu=cpu, body=struct.pack("<IIIIQ", pid, pid, tid, tid, time))


def comm(time: int, tid: int, name: bytes, pid: int = 100, misc: int = 0) -> bytes:
    padded = name + b"\0" * (8 - len(name) % 8)
    return record(3, time, pid, tid, misc=misc, body=struct.pack("<II", pid, tid) + padded)


def lost(time: int, count: int) -> bytes:
    return record(2, time, 100, 100, body=struct.pack("<QQ", 7, count))


def write(folder: Path, *cpus: bytes) -> Path:
    for cpu, data in enumerate(cpus):
        (folder / f"sched-{cpu}.bin").write_bytes(data)
    return folder


def test_switches_of_all_cores_are_merged_by_time(tmp_path: Path) -> None:
    first = switch(10, 1, on=True) + switch(30, 1, on=False, preempted=True)
    second = switch(20, 2, on=True, cpu=1) + switch(40, 2, on=False, cpu=1)
    events = read_sched(write(tmp_path, first, second))
    assert events.switches.tolist() == [
        (10, 100, 1, 0, 1, 0),
        (20, 100, 2, 1, 1, 0),
        (30, 100, 1, 0, 0, 1),
        (40, 100, 2, 1, 0, 0),
    ]
    assert events.lost == 0


def test_a_thread_leaves_its_core_where_it_ends(tmp_path: Path) -> None:
    events = read_sched(write(tmp_path, b"", switch(10, 1, on=True, cpu=1) + end(25, 1, cpu=1)))
    assert events.switches.tolist() == [(10, 100, 1, 1, 1, 0), (25, 100, 1, 1, 0, 0)]
    assert events.tasks.tolist() == [(25, 100, 1, 0)]


def test_births_ends_and_inherited_names(tmp_path: Path) -> None:
    data = comm(5, 1, b"python") + fork(10, 2, parent=1) + comm(12, 1, b"renamed") + fork(20, 3, parent=1) + end(30, 2)
    events = read_sched(write(tmp_path, data))
    assert events.tasks.tolist() == [(10, 100, 2, 1), (20, 100, 3, 1), (30, 100, 2, 0)]
    assert events.names == {1: "renamed", 2: "python", 3: "renamed"}


def test_a_reused_id_does_not_keep_the_old_name(tmp_path: Path) -> None:
    data = fork(10, 2, parent=1) + comm(11, 2, b"old") + end(12, 2) + fork(20, 2, parent=1)
    assert read_sched(write(tmp_path, data)).names == {}


def test_names_that_are_not_text_survive(tmp_path: Path) -> None:
    assert read_sched(write(tmp_path, comm(1, 9, b"\xff\xfeab"))).names == {9: "\ufffd\ufffdab"}


def test_what_the_kernel_dropped_is_counted(tmp_path: Path) -> None:
    folder = write(tmp_path, switch(1, 1, on=True) + lost(2, 40), lost(3, 2))
    assert read_sched(folder).lost == 42
    assert count_records(folder) == (3, 42)


@pytest.mark.parametrize("keep", [1, 8, 31])
def test_a_torn_tail_costs_only_its_own_record(tmp_path: Path, keep: int) -> None:
    events = read_sched(write(tmp_path, switch(1, 1, on=True) + switch(2, 1, on=False)[:keep]))
    assert events.switches["time"].tolist() == [1]


def test_an_id_that_looks_like_a_header_is_not_one(tmp_path: Path) -> None:
    # As a word, pid 14 and tid 32 << 16 read like the head of a switch record.
    data = switch(1, 32 << 16, on=True, pid=14) + switch(2, 32 << 16, on=False, pid=14)
    assert read_sched(write(tmp_path, data)).switches["time"].tolist() == [1, 2]


def test_records_of_unknown_types_are_passed_over(tmp_path: Path) -> None:
    data = switch(1, 1, on=True) + record(5, 2, 100, 1, body=b"x" * 24) + switch(3, 1, on=False)
    assert read_sched(write(tmp_path, data)).switches["time"].tolist() == [1, 3]


def test_ends_by_thread(tmp_path: Path) -> None:
    assert read_ends(write(tmp_path, end(30, 2) + end(50, 3), end(40, 2))) == {2: [30, 40], 3: [50]}


def test_nothing_recorded(tmp_path: Path) -> None:
    assert len(read_sched(tmp_path).switches) == 0
    assert len(read_sched(write(tmp_path, b"")).tasks) == 0


def test_other_files_of_perf_records_are_not_the_targets(tmp_path: Path) -> None:
    (tmp_path / "sched-copy.bin").write_bytes(switch(1, 1, on=True))
    assert len(read_sched(tmp_path).switches) == 0


def test_an_exec_is_told_from_a_new_name(tmp_path: Path) -> None:
    data = fork(10, 100, parent=1) + comm(12, 100, b"renamed") + comm(20, 100, b"sleep", misc=EXEC) + end(30, 100)
    events = read_sched(write(tmp_path, data))
    assert events.execs == ((20, 100, "sleep"),)
    assert events.tasks.tolist() == [(10, 100, 100, 1), (30, 100, 100, 0)]


def test_a_thread_that_executes_takes_the_place_of_all(tmp_path: Path) -> None:
    born = fork(10, 100, parent=1) + fork(11, 101, parent=100) + fork(12, 102, parent=100)
    data = born + end(18, 101) + end(19, 100) + comm(20, 100, b"sleep", misc=EXEC) + end(30, 100)
    events = read_sched(write(tmp_path, data))
    assert events.tasks.tolist()[3:] == [
        (18, 100, 101, 0),
        (19, 100, 100, 0),
        (20, 100, 102, 0),  # the one that did it
        (20, 100, 100, 1),
        (30, 100, 100, 0),
    ]

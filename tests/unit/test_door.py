"""What is no recording is refused at the door; what is damaged in one process's file costs that process alone."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import giltrace
from giltrace.errors import GiltraceError, RecordingError
from giltrace.recording import layout, meta
from giltrace.recording.clock import PAIR, TickClock
from giltrace.recording.door import Source, Times, read_data
from giltrace.recording.events import SPAN, Spans
from giltrace.recording.gil import read_processes
from giltrace.recording.lines import LineTable
from giltrace.recording.meta import Meta
from giltrace.recording.sched import read_sched
from giltrace.recording.spans import read_spans, write_spans
from giltrace.recording.stacks import read_stacks
from giltrace.timeline.axis import LifeAxis
from traces.regenerate import unpack

#: Processes of the sample.
PARENT, FIRST, SECOND = 29053, 29061, 29062


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recording of three processes."""
    return unpack("fork_pool", tmp_path)


def patch(path: Path, dtype: np.dtype[Any], name: str, value: int, at: int = 0) -> None:
    """Change a field of a structure in a file."""
    assert dtype.fields is not None
    kind, offset = dtype.fields[name][:2]
    data = bytearray(path.read_bytes())
    data[at + offset : at + offset + kind.itemsize] = value.to_bytes(kind.itemsize, "little")
    path.write_bytes(data)


def replaced(path: Path, put: Callable[[Path], object]) -> None:
    path.unlink()
    put(path)


def make_socket(path: Path) -> None:
    # Its own name is short enough for a socket; the way there need not be.
    folder = os.open(path.parent, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(f"/proc/self/fd/{folder}/{path.name}")
    os.close(folder)


ODD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (lambda path: os.mkfifo(path), "it is no regular file"),
    "socket": (make_socket, "it is no regular file"),
    "folder": (lambda path: path.mkdir(), "it is no regular file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a link"),
    "itself": (lambda path: path.symlink_to(path.name), "it is a link"),
    "link": (lambda path: path.symlink_to("/etc/hostname"), "it is a link"),
}


@pytest.mark.parametrize("kind", ODD)
def test_only_regular_files_are_opened(kind: str, folder: Path) -> None:
    put, said = ODD[kind]
    replaced(folder / "meta.json", put)
    with pytest.raises(RecordingError, match=f"meta.json is damaged: {said}"):
        giltrace.load(folder)


@pytest.mark.parametrize("kind", ODD)
@pytest.mark.parametrize(
    "name", [f"gil-{FIRST}-0.bin", f"stacks-{FIRST}-0.bin", "sched-0.bin", f"py-spy-{FIRST}.spans.npz"]
)
def test_what_took_a_files_place_costs_that_file_alone(name: str, kind: str, folder: Path) -> None:
    put, said = ODD[kind]
    replaced(folder / name, put)
    found = giltrace.load(folder).timeline
    what = f"process {FIRST}: its file" if name.startswith("gil") else name
    told = [*found.remarks, *found.violations]
    assert f"{what} is damaged ({said}): left out" in told
    assert {process.pid for process in found.processes} >= {PARENT, SECOND}


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("magic", 7, "it is no tracer's file"),
        ("version", 4, "format version 4, this giltrace reads 1 and 2 and 3"),
        ("pid", 0, "its process id is 0"),
        ("pid", 1 << 31, "its process id is 2147483648"),
        ("gil_count", 65, "it has 65 GILs"),
        ("status", 32, "it has GILs, and is of no Python"),
        ("clock", 9, "its clock is of the unknown kind 9"),
        ("lost", 1 << 63, "its head's lost makes no sense"),
        ("start_ns", 5, "it is of another time than the recording"),
        ("known_until_ns", (1 << 64) - 1, "it is of another time than the recording"),
        ("longest_gap_ns", 1 << 63, "its head's longest_gap_ns makes no sense"),
    ],
)
def test_a_head_that_makes_no_sense_costs_its_process_alone(field: str, value: int, said: str, folder: Path) -> None:
    patch(folder / f"gil-{FIRST}-0.bin", layout.HEADER, field, value)
    found = giltrace.load(folder)
    assert f"process {FIRST}: its file is damaged ({said}): left out" in found.timeline.remarks
    assert f"process {FIRST}: its file is damaged ({said}): left out" in found.report().quality.remarks
    whole = {process.pid: len(process.holds) for process in found.timeline.processes}
    assert whole[PARENT] > 0
    assert whole[SECOND] > 0


def test_a_head_that_is_cut_off_is_told_and_one_never_written_is_not(folder: Path) -> None:
    os.truncate(folder / f"gil-{FIRST}-0.bin", 100)
    os.truncate(folder / f"gil-{SECOND}-0.bin", 0)
    remarks = giltrace.load(folder).timeline.remarks
    assert [one for one in remarks if "left out" in one] == [
        f"process {FIRST}: its file is damaged (its head is cut off): left out"
    ]


def test_where_no_process_is_left_it_is_an_error(folder: Path) -> None:
    for pid in (PARENT, FIRST, SECOND):
        patch(folder / f"gil-{pid}-0.bin", layout.HEADER, "clock", 9)
    with pytest.raises(RecordingError, match="is damaged: its clock is of the unknown kind 9"):
        giltrace.load(folder)


def test_unknown_bits_and_a_program_that_is_no_python_do_no_harm(folder: Path) -> None:
    known = int(layout.Status.OBSERVED | layout.Status.NOT_PYTHON)
    patch(folder / f"gil-{FIRST}-0.bin", layout.HEADER, "status", 0xFFFFFFFF & ~known)
    head = bytearray((folder / f"gil-{PARENT}-0.bin").read_bytes()[:4096])
    head[1208:3256] = b"sleep\x001".ljust(2048, b"\0")
    head[56:696] = bytes(640)
    head[52:56] = (32).to_bytes(4, "little")
    (folder / f"gil-{PARENT}-1.bin").write_bytes(head)
    found = giltrace.load(folder)
    assert sorted(process.pid for process in found.timeline.processes) == [PARENT, FIRST, SECOND]
    found.report()


@pytest.mark.parametrize("number", [(1 << 32) - 1, 1 << 31, 77_777])
def test_numbers_of_threads_and_stacks_take_no_memory(number: int, folder: Path) -> None:
    path = folder / f"gil-{FIRST}-0.bin"
    whole = {one.pid: one for one in read_processes(folder)[0]}[FIRST]
    patch(path, layout.CHUNK, "thread", number, at=4096)
    with (folder / f"stacks-{FIRST}-0.bin").open("ab") as stacks:
        stacks.write(struct.pack("<4I", 2, number, 0, 0))
    found = {one.pid: one for one in read_processes(folder)[0]}[FIRST]
    assert sorted(thread.tid for thread in found.threads) == sorted(thread.tid for thread in whole.threads)
    assert len(found.events) == len(whole.events)
    assert int(found.events["thread"].max()) < len(found.threads)


def test_records_of_other_times_are_left_out_and_counted(folder: Path) -> None:
    patch(folder / f"gil-{FIRST}-0.bin", layout.CHUNK, "base", (1 << 64) - 1, at=4096)
    found = giltrace.load(folder).timeline
    assert any("records of times outside the recording: " in one for one in found.violations)
    assert found.end - found.start < 3600 * 10**9


@pytest.mark.parametrize(("field", "value"), [("size", 4097), ("size", 1 << 31), ("tid", 0), ("lost", 1 << 60)])
def test_a_chunk_whose_head_makes_no_sense_costs_itself(field: str, value: int, folder: Path) -> None:
    path = folder / f"gil-{FIRST}-0.bin"
    before = {one.pid: one for one in read_processes(folder)[0]}[FIRST]
    patch(path, layout.CHUNK, field, value, at=4096)
    after = {one.pid: one for one in read_processes(folder)[0]}[FIRST]
    assert after.problems == ("chunks whose head makes no sense: 1",)
    assert len(after.threads) >= len(before.threads) - 1
    assert len(after.events) < len(before.events)


def test_a_hole_takes_neither_time_nor_memory(folder: Path) -> None:
    for path in folder.glob("*.bin"):
        os.truncate(path, 1 << 40)
    found = giltrace.load(folder)
    assert len(found.holds) > 100
    with Source(folder / "sched-0.bin") as source:
        assert source.size == 1 << 40
        assert len(source.data()) < 1 << 24


def test_a_file_that_is_cut_off_while_it_is_read_ends_there(folder: Path) -> None:
    path = folder / f"gil-{FIRST}-0.bin"
    with Source(path) as source:
        assert len(source.read(0, 8192)) == 8192
        os.truncate(path, 5000)
        assert len(source.read(4096, 8192)) == 904
        assert source.read(8192, 10) == b""


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes(11))
    with pytest.raises(RecordingError, match="it has 11 bytes"):
        read_data(tmp_path / "x", 10)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "it is no JSON"),
        ("[1]", "it does not describe a recording"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"start_ns": NaN}', "NaN is no number"),
        ('{"start_ns": ' + "9" * 10_000 + "}", "it is no JSON"),
        ('{"format": "something else"}', "it does not describe a recording"),
    ],
)
def test_a_description_that_is_none(text: str, said: str, folder: Path) -> None:
    (folder / "meta.json").write_text(text)
    with pytest.raises(RecordingError, match=f"meta.json is damaged: .*{said}"):
        Meta.read(folder)


WRONG: dict[str, tuple[Any, ...]] = {
    "start_ns": (-1, 1 << 63, 1.5, "1", None, True, []),
    "machine": (None, [], {"cpus": 0}, {"cpus": 10**9}, {"cpus": "4"}, {"release": []}),
    "thread_names": ([], {"x": "y"}, {"1": 2}, {"-1": "y"}, {"9" * 30: "y"}),
    "ids": ({"1": 1 << 40}, {"1": "2"}, {"1": 0}),
    "collectors": ({}, [1], [{}], [{"name": "gil"}], [{"name": "gil", "status": 1}]),
    "trigger": (1, {}, {"kind": "wait"}, {"kind": "wait", "rule": "", "time_ns": -1}),
    "asleep": ({}, [1], [{}], [{"pid": 1}]),
    "command": ("x", [1], None),
    "realtime_offset_ns": (-(1 << 62),),
    "exit_status": ("0", 10**9),
    "state": ("half", None, []),
    "end_ns": (1 << 62,),
}


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in WRONG.items() for value in values],
    ids=str,
)
def test_a_field_that_makes_no_sense_is_named(field: str, value: object, folder: Path) -> None:
    told = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**told, field: value}))
    with pytest.raises(RecordingError, match=f"meta.json is damaged: its {field} makes no sense"):
        Meta.read(folder)
    del told["boottime_offset_ns"]
    (folder / "meta.json").write_text(json.dumps(told))
    with pytest.raises(RecordingError, match="it has no boottime_offset_ns"):
        Meta.read(folder)


def test_a_field_that_is_not_known_is_passed_over(folder: Path) -> None:
    told = json.loads((folder / "meta.json").read_text())
    (folder / "meta.json").write_text(json.dumps({**told, "weather": "fine"}))
    assert Meta.read(folder).command == told["command"]


def test_readings_of_the_clock_that_contradict_the_others_are_left_out() -> None:
    pairs = np.zeros(100, PAIR)
    pairs["ticks"], pairs["ns"] = np.arange(100) * 2000 + 10**12, np.arange(100) * 1000 + 10**15
    sound = TickClock(pairs)
    wrong = pairs.copy()
    wrong["ns"][[20, 50, 99]] = 5, 10**17, 10**14
    wrong["ticks"][70] = (1 << 64) - 1
    clock = TickClock(wrong[::-1])
    ticks = np.array([10**12, 10**12 + 30_001, 10**12 + 150_000], np.uint64)
    assert clock.to_ns(ticks).tolist() == sound.to_ns(ticks).tolist()
    far = clock.to_ns(np.array([0, 1 << 62, 1 << 63, (1 << 64) - 1], np.uint64))
    assert (np.abs(far) < 1 << 61).all()


def test_spans_that_make_no_sense_are_left_out_and_told(tmp_path: Path) -> None:
    rows = [(50, 60, 7, 0, 0), (60, 50, 7, 0, 0), (50, 60, 7, 9, 0), (50, 60, -1, 0, 0), (5, 60, 7, 0, 0)]
    write_spans(tmp_path, Spans("py-spy", 1, True, ("f",), np.array(rows, SPAN)))
    damage: list[str] = []
    (found,) = read_spans(tmp_path, times=Times(10, 100), damage=damage)
    assert found.spans.tolist() == [(50, 60, 7, 0, 0)]
    assert damage == ["py-spy-1.spans.npz: 4 spans make no sense: left out"]


@pytest.mark.parametrize("save", [np.savez_compressed, np.savez])
def test_spans_are_neither_unpacked_nor_of_other_columns(save: Any, tmp_path: Path) -> None:
    about = np.frombuffer(json.dumps({"version": 1}).encode(), np.uint8)
    with (tmp_path / "py-spy-1.spans.npz").open("wb") as file:
        save(file, about=about, spans=np.zeros(10**6, np.uint8))
    with pytest.raises(RecordingError, match=r"are packed|other columns"):
        read_spans(tmp_path)


def test_names_of_files_with_other_numbers_are_passed_over(folder: Path) -> None:
    before = len(giltrace.load(folder).timeline.processes)
    for name in (f"gil-{FIRST}.bin", f"gil-{FIRST}-x.bin", "gil-1-99999999999.bin", f"gil-{FIRST}-0.bin.old"):
        shutil.copyfile(folder / f"gil-{FIRST}-0.bin", folder / name)
    shutil.copyfile(folder / "sched-0.bin", folder / "sched-99999999999.bin")
    found = giltrace.load(folder).timeline
    assert (len(found.processes), found.remarks) == (before, giltrace.load(folder).timeline.remarks)


def test_perf_records_of_impossible_numbers_are_left_out_and_told(tmp_path: Path) -> None:
    def switch(time: int, tid: int, cpu: int) -> bytes:
        return struct.pack("<IHHIIQII", 14, 0, 32, tid, tid, time, cpu, 0)

    good = switch(50, 7, 1)
    odd = [switch(1 << 63, 7, 1), switch(50, 1 << 31, 1), switch(50, 7, 1 << 20), switch(5, 7, 1)]
    unknown = switch(50, 0xFFFFFFFF, 1)
    (tmp_path / "sched-0.bin").write_bytes(good + b"".join(odd) + unknown + good)
    damage: list[str] = []
    found = read_sched(tmp_path, Times(10, 100), damage)
    assert found.switches["time"].tolist() == [50, 50]
    assert damage == ["records of context switches that make no sense: 4"]
    (tmp_path / "sched-0.bin").write_bytes(good + b"\xff" * 64 + good)
    read_sched(tmp_path, Times(10, 100), damage := [])
    assert damage == ["sched-0.bin is damaged (all but its first 1 records): left out"]


def _of(head: bytes, kind: str) -> st.SearchStrategy[bytes]:
    """Any bytes, and such as begin in the right way."""
    return st.binary(max_size=9000) | st.binary(max_size=9000).map(lambda rest: (head + rest)[: 2 * 4096 + len(kind)])


FILES: dict[str, tuple[str, bytes]] = {
    "gil": ("gil-5-0.bin", layout.MAGIC.to_bytes(8, "little") + struct.pack("<3I", 1, 5, 1)),
    "chunk": (
        "gil-5-0.bin",
        (layout.MAGIC.to_bytes(8, "little") + struct.pack("<3I", 1, 5, 1)).ljust(4096, b"\0")
        + struct.pack("<5I", layout.CHUNK_MAGIC, 4096, 3, 7, 0),
    ),
    "stacks": ("stacks-5-0.bin", struct.pack("<3I", 1, 1, 1)),
    "sched": ("sched-0.bin", struct.pack("<IHH", 14, 0, 32)),
    "clock": ("clock.bin", b""),
    "meta": ("meta.json", b'{"format": "giltrace-recording", "version": 1, '),
    "spans": ("py-spy-5.spans.npz", b"PK\x03\x04"),
}


@pytest.mark.parametrize("kind", FILES)
def test_any_bytes_are_read_or_refused(kind: str, tmp_path: Path) -> None:
    name, head = FILES[kind]
    table = LineTable((3, 12), 1, bytes([0xF8] * 1000))
    assert table.line(4) == 0

    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    @given(_of(head, kind))
    def check(data: bytes) -> None:
        (tmp_path / name).write_bytes(data)
        for read in (
            lambda: read_processes(tmp_path),
            lambda: read_stacks(tmp_path / "stacks-5-0.bin", (3, 12)),
            lambda: read_sched(tmp_path),
            lambda: read_spans(tmp_path),
            lambda: Meta.read(tmp_path),
        ):
            with contextlib.suppress(GiltraceError):
                read()

    check()


def test_threads_that_live_too_long_have_no_states(folder: Path) -> None:
    built = giltrace.load(folder).timeline.processes[0]
    starts = np.zeros(300, np.int64)
    assert LifeAxis.fits(starts, starts + 10**13)
    assert not LifeAxis.fits(starts, starts + 30 * 86_400 * 10**9)
    assert built.has_sched


def test_each_field_of_the_description_is_checked() -> None:
    assert set(meta._ACCEPTED) == {field.name for field in fields(Meta)}


def test_a_file_that_nobody_has_any_more_is_closed(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12")
    before = len(os.listdir("/proc/self/fd"))
    source = Source(path)
    assert source.read(0, 2) == b"12"
    del source
    assert len(os.listdir("/proc/self/fd")) == before


def test_one_that_is_closed_reads_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"12")
    source = Source(tmp_path / "x")
    source.close()
    with open("/dev/zero", "rb"), pytest.raises(OSError, match="Bad file descriptor"):
        source.read(0, 2)

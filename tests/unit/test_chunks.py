"""Chunks of the tracer's files are found and read, whatever their size, and each costs only itself."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from giltrace.launch.attach.progress import EventCount
from giltrace.process.folder import Folder
from giltrace.recording import chunks, layout
from giltrace.recording.events import ProcessEvents
from giltrace.recording.gil import open_files, read_process
from giltrace.recording.keep import Keeper
from giltrace.recording.layout import Kind
from giltrace.recording.live import LiveReader
from tests.live_files import SIZE, TracerFile, word

ACQUIRE, RELEASE, STACK, END = Kind.ACQUIRE, Kind.RELEASE, Kind.STACK, Kind.THREAD_END
SMALL = layout.SMALL_CHUNK


@pytest.fixture
def file(tmp_path: Path) -> TracerFile:
    return TracerFile(tmp_path)


def read(folder: Path) -> ProcessEvents:
    (file,) = open_files(folder)
    return read_process(file, None, stacks=False)


def rows(process: ProcessEvents) -> list[tuple[int, int, int]]:
    """(the thread's id, kind, time) of each event."""
    events = process.events
    return [(process.threads[e["thread"]].tid, int(e["kind"]), int(e["time"])) for e in events]


def fill(file: TracerFile, threads: int) -> list[int]:
    """Two events of each of some threads, in a stretch; where their chunks are."""
    places = file.stretch(-(-SMALL * (threads + 1) // SIZE))[:threads]
    for number, at in enumerate(places):
        file.write(
            file.small(at, number, name=f"t{number}"), word(ACQUIRE, 10 * number + 1), word(END, 10 * number + 2)
        )
    return places


def test_small_and_large_chunks_are_read_in_the_order_of_their_threads(file: TracerFile, tmp_path: Path) -> None:
    one, two, three = file.stretch()[:3]
    file.write(file.small(one, 0, name="early"), word(STACK, 3), word(ACQUIRE, 1), word(RELEASE, 2))
    file.write(file.small(two, 1), word(STACK, 9), word(RELEASE, 4))
    # The newest of the thread's chunks lies before the one that is older.
    file.write(file.small(three, 0, 2, base=200, name="late"), word(STACK, 5), word(RELEASE, 1))
    file.write(file.chunk(0, 1, base=100), word(ACQUIRE, 1), word(RELEASE, 2))
    (found,) = open_files(tmp_path)
    ((heads, written, _),) = found.written()
    assert heads["sequence"].tolist() == [0, 0, 1, 2]
    assert written.threads.tolist() == [0, 1, 0, 0]
    assert np.diff(written.bounds).tolist() == [3, 2, 2, 2]
    assert written.last_stacks() == [3, 9, -1, 5]
    process = read(tmp_path)
    assert rows(process) == [(100, 3, 1), (100, 4, 2), (101, 4, 4), (100, 3, 101), (100, 4, 102), (100, 4, 201)]
    assert [thread.name for thread in process.threads] == ["late", ""]


def test_a_stack_is_carried_from_chunk_to_chunk_of_its_thread_alone(
    file: TracerFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, three, four = file.stretch()[:4]
    file.write(file.small(one, 0), word(STACK, 3), word(RELEASE, 1))
    file.write(file.small(two, 1), word(RELEASE, 2), word(STACK, 8))
    file.write(file.small(three, 0, 1), word(RELEASE, 3))
    file.write(file.small(four, 1, 1), word(RELEASE, 4), word(Kind.HOLDER_STACK, 6), word(Kind.TIMEOUT, 5))
    for together in (chunks._TOGETHER, 1):
        monkeypatch.setattr(chunks, "_TOGETHER", together)
        assert read(tmp_path).events["stack"].tolist() == [3, 0, 3, 8, 6]


def test_a_small_chunk_that_makes_no_sense_costs_itself(file: TracerFile, tmp_path: Path) -> None:
    places = fill(file, 5)
    with file.path.open("r+b") as damaged:
        damaged.seek(places[2] + 4)
        damaged.write((1024).to_bytes(4, "little"))
    process = read(tmp_path)
    assert [tid for tid, kind, _ in rows(process) if kind == END] == [100, 101, 103, 104]
    assert process.problems == ("chunks whose head makes no sense: 1",)


@pytest.mark.parametrize(
    ("field", "value"), [("size", 1000), ("size", 1 << 31), ("chunk", 3), ("chunk", 0), ("chunk", SIZE)]
)
def test_a_stretch_that_makes_no_sense_costs_itself(field: str, value: int, file: TracerFile, tmp_path: Path) -> None:
    at = fill(file, 3)[0] - SMALL
    assert layout.STRETCH.fields is not None
    with file.path.open("r+b") as damaged:
        damaged.seek(at + int(layout.STRETCH.fields[field][1]))
        damaged.write(value.to_bytes(4, "little"))
    file.write(file.chunk(7), word(ACQUIRE, 70))
    assert rows(read(tmp_path)) == [(107, 3, 70)]


def test_what_is_cut_off_costs_only_that(file: TracerFile, tmp_path: Path) -> None:
    places = fill(file, 12)
    os.truncate(file.path, places[7] + layout.CHUNK.itemsize + 8)
    process = read(tmp_path)
    assert [tid for tid, kind, _ in rows(process) if kind == END] == [100 + number for number in range(7)]
    assert rows(process)[-1] == (107, 3, 71)


def test_files_from_before_there_were_stretches_are_read(file: TracerFile, tmp_path: Path) -> None:
    file.write(file.chunk(0), word(ACQUIRE, 10))
    with file.path.open("r+b") as older:
        older.seek(8)
        older.write((1).to_bytes(4, "little"))
    assert rows(read(tmp_path)) == [(100, 3, 10)]


def test_what_was_written_of_chunks_of_all_sizes_is_counted(file: TracerFile, tmp_path: Path) -> None:
    with Folder.own(tmp_path) as folder:
        count = EventCount(folder)
        assert count.count() == 0
        places = file.stretch()
        file.write(file.small(places[0], 0), word(ACQUIRE, 1), word(END, 2))
        assert count.count() == 2
        at = file.small(places[1], 1)
        file.write(at, *(word(ACQUIRE, time) for time in range(1, 48)))
        assert count.count() == 49
        file.write(at, word(RELEASE, 50))
        file.write(file.chunk(1, 1), word(ACQUIRE, 60))
        assert count.count() == 51


def test_a_kept_part_has_small_chunks_for_short_threads(file: TracerFile, tmp_path: Path) -> None:
    fill(file, 200)
    reader = LiveReader(tmp_path)
    keeper = Keeper(tmp_path / "kept", ["x"], reader, 0)
    keeper.take(reader.poll(1_000_000), 1_000_000)
    kept = keeper.finish()
    reader.close()
    (path,) = kept.glob("gil-*.bin")
    assert path.stat().st_size <= layout.HEADER_SIZE + 2 * (1 << 16)
    assert rows(read(kept)) == rows(read(tmp_path))

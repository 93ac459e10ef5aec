"""Chunks that are packed while a program goes on: what is read is what was written."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from giltrace.errors import RecordingError
from giltrace.recording import chunks, layout
from giltrace.recording.door import Damaged, Source
from giltrace.recording.gil import read_processes
from giltrace.recording.packed import Laid, frames, pack, packed_name, size_of
from giltrace.recording.packing import Packer
from giltrace.timeline.load import is_long
from tests.unit.test_gil_writer import TIDS, events, read, writer

HEAD = layout.CHUNK.itemsize


def recorded(folder: Path, count: int = 200_000) -> Path:
    """A recording of three threads, some chunks of each of which are large."""
    folder.mkdir(exist_ok=True)
    file = writer(folder)
    made = events(count)
    made["time"] += np.random.default_rng(1).integers(0, 900, count, dtype=np.uint64)
    for part in np.array_split(made, 20):
        file.append(part, TIDS)
    file.close()
    (path,) = folder.glob("gil-*.bin")
    return path


def written(path: Path) -> Iterator[chunks.Written]:
    with Laid(path) as laid:
        for _, some, _ in chunks.read(laid, chunks.find(laid)):
            yield some


def pack_all(folder: Path) -> int:
    packer, packed = Packer(folder, wait=0), 0
    while packer.step():
        packed += 1
    return packed


def test_room_that_was_made_ahead_of_need_is_not_counted(tmp_path: Path) -> None:
    """As it is where a seccomp filter may forbid to make some later: the blocks are there, and nothing in them."""
    path = recorded(tmp_path / "r", 1_000)
    before = size_of(path, 1 << 30)
    assert 8_000 <= before <= path.stat().st_size
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), path.stat().st_size, 16 << 20)
    assert path.stat().st_size > 16 << 20
    assert size_of(path, 1 << 30) == before
    assert not is_long(path.parent)


def test_what_was_packed_reads_as_it_was_and_takes_less_room(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r")
    before, data, blocks = read(path.parent), path.read_bytes(), path.stat().st_blocks
    assert pack_all(path.parent) >= 3
    packed = packed_name(path)
    assert blocks - path.stat().st_blocks > 4 * packed.stat().st_blocks
    after = read(path.parent)
    assert (after.events == before.events).all()
    assert (after.threads, after.problems) == (before.threads, ())
    assert size_of(path, len(data)) == 8 * sum(len(some.records) for some in written(path))
    assert path.stat().st_size == len(data)
    chance = random.Random(1)
    with Laid(path) as laid:
        for _ in range(200):
            at, count = chance.randrange(len(data) + 10), chance.choice((1, 40, HEAD, 5000, 1 << 20))
            assert laid.read(at, count) == data[at : at + count]
        assert laid.read(0, len(data)) == data


def test_what_is_too_regular_is_left(tmp_path: Path) -> None:
    """No reader would believe it."""
    file = writer(tmp_path)
    file.append(events(200_000), TIDS)
    file.close()
    before = read(tmp_path)
    pack_all(tmp_path)
    assert (read(tmp_path).events == before.events).all()


def test_the_last_chunk_of_each_thread_stays(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r")
    pack_all(path.parent)
    with Source(packed_name(path)) as source:
        places = {frame.at for frame in frames(source)}
    whole = [head for head in _heads(path) if int(head["thread"]) in (0, 1, 2)]
    for thread in range(3):
        last = max((head for head in whole if int(head["thread"]) == thread), key=lambda head: int(head["sequence"]))
        assert int(last["at"]) not in places


def _heads(path: Path) -> list[dict[str, int]]:
    from giltrace.recording.chunks import find

    with Laid(path) as laid:
        found = []
        for place in find(laid):
            head = np.frombuffer(laid.read(int(place["at"]), HEAD), layout.CHUNK)[0]
            found.append({"at": int(place["at"]), "thread": int(head["thread"]), "sequence": int(head["sequence"])})
    return found


def test_what_is_left_only_now_waits(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r")
    packer = Packer(path.parent, wait=1000)
    assert not packer.step()
    assert not packed_name(path).exists()
    packer.wait = 0
    assert packer.step()


def test_a_recorder_that_was_killed_costs_nothing(tmp_path: Path) -> None:
    """It leaves a torn frame, or a whole one whose chunk is still there."""
    path = recorded(tmp_path / "r")
    before, data = read(path.parent), path.read_bytes()
    pack_all(path.parent)
    packed = packed_name(path)
    path.write_bytes(data)
    for size in (packed.stat().st_size, packed.stat().st_size - 1, 30, 0):
        os.truncate(packed, size)
        assert (read(path.parent).events == before.events).all()


def test_damage_costs_the_file_and_is_told(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r")
    other = path.with_name("gil-71-0.bin")
    other.write_bytes(path.read_bytes())
    pack_all(path.parent)
    packed = packed_name(path)
    whole = packed.read_bytes()
    for at, value in ((0, 0), (4, 255), (20, 255), (16, 255), (24 + HEAD + 4, 255), (24 + HEAD + 60, 1)):
        packed.write_bytes(whole[:at] + bytes([whole[at] ^ value or 1]) + whole[at + 1 :])
        damage: list[str] = []
        processes, _ = read_processes(path.parent, damage=damage)
        assert len(processes) == 2 if not damage else len(processes) == 1 and "damaged" in damage[0]
    packed.write_bytes(b"GTPK" + b"\xff" * 400)
    other.unlink()
    with pytest.raises(RecordingError, match=r"no packed chunk"):
        read_processes(path.parent)


def test_what_would_fill_memory_is_refused(tmp_path: Path) -> None:
    chunk = bytearray(4 << 20)
    chunk[:HEAD] = np.zeros(1, layout.CHUNK).tobytes()
    chunk[HEAD:] = b"\1" * (len(chunk) - HEAD)
    bomb = tmp_path / "packed-1-0.bin"
    bomb.write_bytes(pack(4096, bytes(chunk), len(chunk)))
    assert bomb.stat().st_size < 5000
    with Source(bomb) as source, pytest.raises(Damaged):
        list(frames(source))


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    path = recorded(tmp_path / "r")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"somebody's")
    packed_name(path).symlink_to(elsewhere)
    data = path.read_bytes()
    assert pack_all(path.parent) == 0
    assert (elsewhere.read_bytes(), path.read_bytes()) == (b"somebody's", data)


def test_what_cannot_be_written_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recorded(tmp_path / "r")
    data, write = path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda file, frame: write(file, frame[:100]))
    assert pack_all(path.parent) == 0
    assert packed_name(path).read_bytes() == b""
    assert path.read_bytes() == data

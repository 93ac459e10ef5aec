"""From samples of addresses to places in files, by records made by hand."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import numpy as np

from giltrace.recording.code_samples import CodeSamples, read_code_samples
from giltrace.recording.maps_file import DEPTH, MAPS, MapsFile
from giltrace.recording.sched import count_records, read_sched
from tests.unit.test_sched_reader import EXEC, comm, end, fork, lost, record, switch, write

USER_CODE = (1 << 64) - 512
CHILD, PARENT = 200, 100


def mapped(time: int, path: str, start: int, size: int, place: int = 0, *, pid: int = PARENT, inode: int = 7) -> bytes:
    name = os.fsencode(path)
    body = struct.pack("<IIQQQIIQQII", pid, pid, start, size, place, 8, 1, inode, 0, 5, 2)
    return record(10, time, pid, pid, body=body + name + b"\0" * (8 - len(name) % 8))


def sample(time: int, *addresses: int, tid: int = PARENT, pid: int = PARENT) -> bytes:
    chain = (USER_CODE, *addresses)
    body = struct.pack(f"<QIIQIIQ{len(chain)}Q", addresses[0], pid, tid, time, 0, 0, len(chain), *chain)
    return struct.pack("<IHH", 9, 2, 8 + len(body)) + body


def forked(time: int, pid: int, parent: int) -> bytes:
    return record(7, time, parent, parent, body=struct.pack("<IIIIQ", pid, parent, pid, parent, time))


def places(code: CodeSamples) -> list[list[tuple[str, int]]]:
    """Of each sample, in order of time, the files and the places in them; "" where there is none."""
    told = []
    for row in np.sort(code.samples, order="time"):
        files = [code.files[file].path if file >= 0 else "" for file in row["file"].tolist()]
        pairs = list(zip(files, row["place"].tolist(), strict=True))
        while len(pairs) > 1 and pairs[-1] == ("", 0):
            pairs.pop()
        told.append(pairs)
    return told


def test_addresses_are_places_in_the_files_that_were_mapped(tmp_path: Path) -> None:
    code = mapped(1, "/a.so", 0x1000, 0x1000, 0x3000) + mapped(2, "/b.so", 0x2000, 0x800)
    seen = sample(10, 0x1234) + sample(11, 0x2000, 0x1FFF, 0x27FF, tid=101) + sample(12, 0x2800) + sample(13, 0xFFF)
    found = read_code_samples(write(tmp_path, seen, code))
    assert places(found) == [
        [("/a.so", 0x3234)],
        [("/b.so", 0), ("/a.so", 0x3FFF), ("/b.so", 0x7FF)],
        [("", 0)],
        [("", 0)],
    ]
    assert sorted(found.samples["tid"].tolist()) == [100, 100, 100, 101]
    assert [(one.path, one.inode, one.since) for one in found.files] == [("/a.so", 7, 1), ("/b.so", 7, 2)]


def test_a_chain_is_cut_and_the_kernels_marks_are_left_out(tmp_path: Path) -> None:
    seen = sample(5, *(0x1000 + i for i in range(DEPTH + 3)))
    (found,) = places(read_code_samples(write(tmp_path, mapped(1, "/a.so", 0x1000, 0x1000) + seen)))
    assert found == [("/a.so", i) for i in range(DEPTH)]


def test_what_is_mapped_later_at_the_same_place_counts_from_then_on(tmp_path: Path) -> None:
    old, new = mapped(1, "/old.so", 0x1000, 0x2000), mapped(20, "/new.so", 0x1800, 0x800)
    seen = sample(10, 0x1900) + sample(30, 0x1900) + sample(31, 0x1700) + sample(32, 0x2000)
    assert places(read_code_samples(write(tmp_path, old + seen + new))) == [
        [("/old.so", 0x900)],
        [("/new.so", 0x100)],
        [("/old.so", 0x700)],
        [("/old.so", 0x1000)],
    ]


def test_a_child_has_what_its_parent_had_and_an_exec_nothing(tmp_path: Path) -> None:
    before, after = mapped(1, "/a.so", 0x1000, 0x1000), mapped(6, "/late.so", 0x9000, 0x1000)
    seen = sample(10, 0x1500, pid=CHILD, tid=CHILD) + sample(11, 0x9500, pid=CHILD, tid=CHILD)
    executed = comm(20, CHILD, b"other", pid=CHILD, misc=EXEC)
    executed += mapped(21, "/other", 0x9000, 0x1000, pid=CHILD)
    seen += sample(30, 0x1500, pid=CHILD, tid=CHILD) + sample(31, 0x9500, pid=CHILD, tid=CHILD)
    seen += sample(32, 0x1500) + sample(33, 0x9500)
    # A thread is no child: it has the mappings of its process, later ones too.
    data = before + forked(5, CHILD, PARENT) + after + fork(7, 101, PARENT) + executed + seen
    assert places(read_code_samples(write(tmp_path, data))) == [
        [("/a.so", 0x500)],
        [("", 0)],
        [("", 0)],
        [("/other", 0x500)],
        [("/a.so", 0x500)],
        [("/late.so", 0x500)],
    ]


def test_an_id_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    first = forked(2, CHILD, PARENT) + mapped(3, "/a.so", 0x1000, 0x1000, pid=CHILD) + end(5, CHILD, pid=CHILD)
    second = forked(10, CHILD, PARENT)
    seen = sample(4, 0x1000, pid=CHILD, tid=CHILD) + sample(11, 0x1000, pid=CHILD, tid=CHILD)
    assert places(read_code_samples(write(tmp_path, first + second + seen))) == [[("/a.so", 0)], [("", 0)]]


def test_what_was_mapped_before_is_told_by_a_file_of_its_own(tmp_path: Path) -> None:
    pid = os.getpid()
    write(tmp_path, b"")
    maps = MapsFile(tmp_path)
    maps.look({pid, 1 << 22}, 5)
    size = (tmp_path / MAPS).stat().st_size
    maps.look({pid}, 6)
    assert (tmp_path / MAPS).stat().st_size == size > 0  # nothing has changed
    lines = [line.split(maxsplit=5) for line in Path("/proc/self/maps").read_text().splitlines()]
    named = [words for words in lines if "x" in words[1] and len(words) > 5 and words[5].strip() != "[vsyscall]"]
    code = [(words[0], int(words[2], 16), words[5].strip()) for words in named]
    starts = [int(words[0].partition("-")[0], 16) for words in code]
    data = b"".join(sample(10 + i, start + 5, pid=pid, tid=pid) for i, start in enumerate(starts))
    found = read_code_samples(write(tmp_path, data))
    assert places(found) == [[(path, place + 5)] for _, place, path in code]
    inodes = {one.path: one.inode for one in found.files}
    assert all(os.stat(path).st_ino == inodes[path] for _, _, path in code if path.startswith("/"))


def test_without_samples_there_is_nothing_to_find(tmp_path: Path) -> None:
    assert len(read_code_samples(write(tmp_path, mapped(1, "/a.so", 0x1000, 0x1000))).samples) == 0
    assert len(read_code_samples(tmp_path / "..").samples) == 0


def test_records_that_make_no_sense_and_torn_ones_cost_only_themselves(tmp_path: Path) -> None:
    good = mapped(1, "/a.so", 0x1000, 0x1000) + sample(5, 0x1000)
    odd = mapped(2, "/far.so", (1 << 64) - 4096, 4096) + mapped(2, "/none.so", 0x1000, 9, pid=0)
    short = bytearray(sample(6, 0x1000, 0x1001))
    struct.pack_into("<Q", short, 40, 1 << 40)  # so many addresses it has not
    torn = sample(7, 0x1000)[:-8]
    assert places(read_code_samples(write(tmp_path, good + odd + bytes(short) + torn))) == [[("/a.so", 0)]]


def test_switches_are_read_as_if_there_were_no_samples(tmp_path: Path) -> None:
    data = switch(10, 1, on=True) + mapped(11, "/a.so", 0x1000, 9) + sample(12, 0x1000, 0x1008, tid=1)
    data += switch(20, 1, on=False) + lost(21, 3)
    events = read_sched(write(tmp_path, data))
    assert events.switches["time"].tolist() == [10, 20]
    assert (events.lost, count_records(tmp_path)) == (3, (5, 3))

"""The reader of stacks takes what makes sense, and passes over what does not."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from giltrace.recording.stacks import LiveStacks, copy_records, read_stacks
from tests.stack_files import CODE, STACK, code, padding, record, stack, text, unsized

VERSION = (3, 13)


def functions(path: Path) -> dict[int, list[str]]:
    """The names of each stack that can be read, by the tracer's number."""
    read = read_stacks(path, VERSION)
    assert read is not None
    table, place = read
    known = {}
    for number, at in enumerate(place.tolist()):
        if at >= 0:
            rows = table.frames[table.offsets[at] : table.offsets[at + 1]]
            known[number] = [table.strings[row["function"]] for row in rows]
    return known


def live(path: Path) -> dict[int, list[str]]:
    """The same, as one who follows the file sees it."""
    stacks = LiveStacks(path, VERSION)
    stacks.update()
    told = {number: [frame[0] for frame in stacks.stack(number)] for number in range(1, 10)}
    return {number: names for number, names in told.items() if names}


def written(tmp_path: Path, *parts: bytes) -> Path:
    path = tmp_path / "stacks-1-0.bin"
    path.write_bytes(b"".join(parts))
    return path


def test_reads_stacks_with_their_files_and_lines(tmp_path: Path) -> None:
    path = written(tmp_path, code(1, "inner", 7, "a.py"), code(2, "outer", 3, "b.py"), stack(1, 1, 2, cut=True))
    read = read_stacks(path, VERSION)
    assert read is not None
    table, place = read
    assert place.tolist() == [-1, 0]
    told = [(table.strings[r["function"]], table.strings[r["file"]], int(r["line"])) for r in table.frames]
    assert told == [("inner", "a.py", 7), ("outer", "b.py", 3)]
    assert table.truncated.tolist() == [True]


def test_no_file_is_no_stacks(tmp_path: Path) -> None:
    assert read_stacks(tmp_path / "none", VERSION) is None


GOOD = (code(1, "one"), stack(1, 1))
AFTER = (code(3, "three"), stack(3, 3))


@pytest.mark.parametrize(
    "between",
    [
        pytest.param(padding(1), id="gap of a word"),
        pytest.param(padding(5000), id="gap of pages"),
        pytest.param(record(9, b"what a later version has"), id="unknown kind"),
        pytest.param(stack(2, 7), id="unknown code"),
        pytest.param(record(STACK, struct.pack("<3I", 2, 500, 0)), id="deeper than its record"),
        pytest.param(record(STACK, b""), id="empty stack record"),
        pytest.param(record(CODE, struct.pack("<4I", 2, 1, 4, 1 << 30)), id="text longer than its record"),
        pytest.param(stack(0, 1), id="number 0"),
        pytest.param(stack(0xFFFFFFF0, 1), id="number beyond all"),
    ],
)
def test_passes_over_what_it_cannot_use(tmp_path: Path, between: bytes) -> None:
    path = written(tmp_path, *GOOD, between, *AFTER)
    assert functions(path) == live(path) == {1: ["one"], 3: ["three"]}


@pytest.mark.parametrize("tail", [b"", bytes(4096), stack(2, 1)[:-4], b"\x01"])
def test_ends_where_nothing_more_is_written(tmp_path: Path, tail: bytes) -> None:
    path = written(tmp_path, *GOOD, tail)
    assert functions(path) == live(path) == {1: ["one"]}


def test_a_hole_behind_the_end_is_not_read(tmp_path: Path) -> None:
    path = written(tmp_path, *GOOD)
    with path.open("r+b") as file:
        file.truncate(1 << 40)
    assert functions(path) == live(path) == {1: ["one"]}


def test_reads_recordings_made_before_records_told_their_length(tmp_path: Path) -> None:
    old = unsized(("code", 1, "one"), (1, (1,)), (2, (9,)), ("code", 2, "odd"), (3, (2, 1)))
    path = written(tmp_path, old, b"\x02\0\0\0\x04")
    assert functions(path) == live(path) == {1: ["one"], 3: ["odd", "one"]}


def test_texts_of_all_widths_and_broken_ones(tmp_path: Path) -> None:
    def named(ident: int, width: int, data: bytes) -> bytes:
        name = struct.pack("<2I", width, len(data) // width) + data + bytes(-len(data) % 4)
        return record(CODE, struct.pack("<2I", ident, 1) + text(b"f") + name + text(b""))

    names = [named(1, 2, "żółw".encode("utf-16-le")), named(2, 4, "🐢".encode("utf-32-le"))]
    names.append(named(3, 4, b"\xff" * 8))
    path = written(tmp_path, *names, *(stack(number, number) for number in (1, 2, 3)))
    assert functions(path) == {1: ["żółw"], 2: ["🐢"], 3: ["\ufffd\ufffd"]}


def test_what_is_new_comes_as_it_is_written(tmp_path: Path) -> None:
    path = written(tmp_path, *GOOD, bytes(8192))
    stacks = LiveStacks(path, VERSION)
    stacks.update()
    assert stacks.top(np.array([1, 3], np.int32)).tolist() == [0, -1]
    at = len(b"".join(GOOD))
    with path.open("r+b") as file:
        file.seek(at)
        file.write(padding(16) + code(2, "two") + stack(3, 2, 1) + bytes(4096))
    stacks.update()
    assert stacks.top(np.array([1, 2, 3], np.int32)).tolist() == [0, -1, 1]
    assert stacks.tops == [(("one", "app.py", 10),) * 2, (("two", "app.py", 10),) * 2]
    assert [name for name, _, _ in stacks.stack(3)] == ["two", "one"]


def test_one_who_follows_knows_the_users_own_line(tmp_path: Path) -> None:
    build = "/src/cpython/Lib/"
    codes = (
        code(1, "dumps", 5, "/usr/lib/python3.13/json/__init__.py"),
        code(2, "mine", 7, "/srv/app.py"),
        code(3, "main", 9, "/srv/app.py"),
        code(4, "_bootstrap", 1, build + "threading.py"),
        code(5, "get", 2, build + "queue.py"),
    )
    path = written(tmp_path, *codes, stack(1, 1, 2, 3), stack(2, 2, 3), stack(3, 1), stack(4, 5, 3, 4), stack(5, 1, 3))
    stacks = LiveStacks(path, VERSION)
    stacks.update()
    told = [tuple(name for name, _, _ in stacks.tops[top]) for top in stacks.top(np.arange(1, 6, dtype=np.int32))]
    assert told == [("dumps", "mine"), ("mine", "mine"), ("dumps", "dumps"), ("get", "main"), ("dumps", "main")]


def test_a_copy_of_a_growing_file_has_what_is_written_and_no_gaps(tmp_path: Path) -> None:
    path, copied = written(tmp_path, *GOOD, bytes(4096)), tmp_path / "copy"
    with copied.open("wb") as out:
        at = copy_records(path, 0, out)
        path.write_bytes(b"".join(GOOD) + padding(1000) + b"".join(AFTER) + bytes(64))
        at = copy_records(path, at, out)
        assert copy_records(path, at, out) == at
    assert copied.read_bytes() == b"".join((*GOOD, *AFTER))
    assert functions(copied) == {1: ["one"], 3: ["three"]}

"""Following a file of the tracer's while it grows: what is new comes once, whatever order it becomes visible in."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from giltrace.collectors.rules import parse
from giltrace.collectors.rules.held import Held
from giltrace.collectors.rules.outside import Outside
from giltrace.errors import RecordingError
from giltrace.recording import layout
from giltrace.recording.layout import Kind, RecordFlag
from giltrace.recording.live import LiveReader, Update
from giltrace.recording.meta import Meta
from tests.live_files import SIZE, TracerFile, word

PER_CHUNK = (SIZE - layout.CHUNK.itemsize) // 8
ACQUIRE, RELEASE, STACK = Kind.ACQUIRE, Kind.RELEASE, Kind.STACK


def seen(updates: list[Update]) -> list[tuple[int, int, int]]:
    """(thread, kind, time) of each event."""
    return [(int(e["thread"]), int(e["kind"]), int(e["time"])) for update in updates for e in update.events]


@pytest.fixture
def file(tmp_path: Path) -> TracerFile:
    return TracerFile(tmp_path)


@pytest.fixture
def reader(tmp_path: Path, file: TracerFile) -> LiveReader:
    return LiveReader(tmp_path)


def test_gives_what_is_new_once_and_in_order_of_time(file: TracerFile, reader: LiveReader) -> None:
    one, two = file.chunk(0, name="MainThread"), file.chunk(1)
    file.write(one, word(ACQUIRE, 10), word(RELEASE, 30))
    file.write(two, word(Kind.REQUEST, 20), word(ACQUIRE, 40))
    (update,) = reader.poll(1000)
    assert seen([update]) == [(0, 3, 10), (1, 1, 20), (0, 4, 30), (1, 3, 40)]
    assert {number: (info.tid, info.name) for number, info in update.threads.items()} == {
        0: (100, "MainThread"),
        1: (101, ""),
    }
    assert seen(reader.poll(1000)) == []
    file.write(two, word(RELEASE, 50))
    assert seen(reader.poll(1000)) == [(1, 4, 50)]


def test_holds_back_what_is_later(file: TracerFile, reader: LiveReader) -> None:
    at = file.chunk(0)
    file.write(at, *(word(ACQUIRE if time % 2 else RELEASE, time) for time in range(1, 200)))
    assert [time for *_, time in seen(reader.poll(70))] == list(range(1, 71))
    assert [time for *_, time in seen(reader.poll(71))] == [71]
    assert [time for *_, time in seen(reader.poll(500))] == list(range(72, 200))


def test_a_stack_goes_with_the_record_that_follows_it(file: TracerFile, reader: LiveReader) -> None:
    at = file.chunk(0)
    file.write(at, word(ACQUIRE, 1), word(STACK, 7))
    assert seen(reader.poll(100)) == [(0, 3, 1)]
    file.write(at, word(RELEASE, 2), word(ACQUIRE, 3), word(RELEASE, 4))
    (update,) = reader.poll(100)
    assert update.events["stack"].tolist() == [7, -1, 7]


def test_a_stack_at_the_end_of_a_chunk_does_not_hold_up_the_next(file: TracerFile, reader: LiveReader) -> None:
    first = file.chunk(0)
    file.write(first, word(ACQUIRE, 1), word(STACK, 7))
    assert seen(reader.poll(100)) == [(0, 3, 1)]
    file.write(file.chunk(0, 1, base=1000), word(RELEASE, 5))
    (update,) = reader.poll(2000)
    assert seen([update]) == [(0, 4, 1005)]
    assert update.events["stack"].tolist() == [7]


def test_goes_on_in_the_next_chunk(file: TracerFile, reader: LiveReader) -> None:
    at = file.chunk(0)
    file.write(at, *(word(ACQUIRE, time) for time in range(1, PER_CHUNK + 1)))
    assert len(seen(reader.poll(10_000))) == PER_CHUNK
    file.write(file.chunk(0, 1, base=5000), word(RELEASE, 1))
    assert seen(reader.poll(10_000)) == [(0, 4, 5001)]


def test_finds_a_chunk_whose_head_is_published_late(file: TracerFile, reader: LiveReader) -> None:
    early = file.allocate()
    later = file.chunk(1)
    file.write(later, word(ACQUIRE, 5))
    assert seen(reader.poll(100)) == [(1, 3, 5)]
    file.begin(early, 0)
    file.write(early, word(ACQUIRE, 6))
    assert seen(reader.poll(100)) == [(0, 3, 6)]


def test_a_release_that_turns_out_to_be_forced_is_said_so(file: TracerFile, reader: LiveReader) -> None:
    at = file.chunk(0)
    file.write(at, word(ACQUIRE, 1), word(RELEASE, 2))
    (update,) = reader.poll(100)
    assert [piece.late_forced for piece in update.pieces] == [False]
    file.overwrite(at, 1, word(RELEASE, 2, flags=RecordFlag.FORCED))
    file.write(at, word(Kind.REQUEST, 2), word(ACQUIRE, 9))
    (update,) = reader.poll(100)
    assert [piece.late_forced for piece in update.pieces] == [True]
    file.write(at, word(RELEASE, 10))
    (update,) = reader.poll(100)
    assert [piece.late_forced for piece in update.pieces] == [False]


def test_a_chunk_that_is_used_again_is_read_as_a_new_one(file: TracerFile, reader: LiveReader) -> None:
    at = file.chunk(0)
    file.write(at, word(ACQUIRE, 1), word(RELEASE, 2))
    file.write(file.chunk(0, 1, base=10), word(ACQUIRE, 1))
    assert len(seen(reader.poll(100))) == 3
    file.begin(at, 1, base=50)
    file.write(at, word(ACQUIRE, 3))
    (update,) = reader.poll(100)
    assert seen([update]) == [(1, 3, 53)]
    assert update.file.missed == 0


def test_a_chunk_that_is_used_again_before_it_was_read_is_counted(file: TracerFile, reader: LiveReader) -> None:
    at = file.chunk(0)
    file.write(at, word(ACQUIRE, 1))
    assert len(seen(reader.poll(100))) == 1
    file.begin(at, 0, 3, base=50)
    file.write(at, word(ACQUIRE, 3))
    # A chunk before it may only have been overlooked: that is known once it was looked for again.
    assert seen(reader.poll(100)) == []
    (update,) = reader.poll(100)
    assert update.file.missed > 0
    file.write(at, word(RELEASE, 4))
    assert [time for *_, time in seen([update, *reader.poll(100)])] == [53, 54]


def test_begins_with_what_is_under_way(tmp_path: Path, file: TracerFile) -> None:
    old = file.chunk(0, name="worker")
    file.write(old, word(ACQUIRE, 1), word(STACK, 7), word(RELEASE, 2))
    new = file.chunk(0, 1, base=10)
    file.write(new, word(ACQUIRE, 1), word(RELEASE, 2), word(ACQUIRE, 3), word(RELEASE, 40))
    reader = LiveReader(tmp_path, since_ns=30)
    (update,) = reader.poll(1000)
    assert seen([update]) == [(0, 3, 13), (0, 4, 50)]
    assert update.events["stack"].tolist() == [-1, 7]
    assert update.threads[0].name == "worker"


def test_a_process_that_is_gone_is_given_whole_and_said_to_have_ended(tmp_path: Path, file: TracerFile) -> None:
    at = file.chunk(0)
    file.write(at, word(ACQUIRE, 1), word(RELEASE, 900))
    alive = [True]
    reader = LiveReader(tmp_path, alive=lambda pid: alive[0])
    (update,) = reader.poll(100)
    assert not update.ended
    alive[0] = False
    (update,) = reader.poll(100)
    assert update.ended
    assert seen([update]) == [(0, 4, 900)]
    assert reader.poll(100) == []


def test_an_image_that_is_not_python_ends_the_one_before_it(tmp_path: Path, file: TracerFile) -> None:
    at = file.chunk(0)
    file.write(at, word(ACQUIRE, 1))
    reader = LiveReader(tmp_path)
    (update,) = reader.poll(100)
    assert not update.ended
    TracerFile(tmp_path, 1, status=layout.Status.NOT_PYTHON)
    (update,) = reader.poll(100)
    assert update.ended
    assert reader.poll(100) == []
    TracerFile(tmp_path, 2)
    (update,) = reader.poll(100)
    assert (update.file.path.name, update.ended) == (f"gil-{os.getpid()}-2.bin", False)


@pytest.mark.parametrize(
    ("executable", "ppid", "ends"),
    [
        (os.readlink("/proc/self/exe"), os.getppid(), False),
        ("/usr/bin/another", os.getppid(), True),
        ("/usr/bin/another", 1 << 22, False),  # another process has that number here
        ("", os.getppid(), False),
        ("/" + 511 * "x", os.getppid(), False),  # cut off
    ],
)
def test_a_process_that_executes_another_program_has_ended(
    tmp_path: Path, executable: str, ppid: int, ends: bool
) -> None:
    TracerFile(tmp_path, executable=executable[:511], ppid=ppid)
    (update,) = LiveReader(tmp_path).poll(100)
    assert update.ended == ends


def test_lost_events_are_those_of_all_chunks(file: TracerFile, reader: LiveReader) -> None:
    one, two = file.allocate(), file.allocate()
    file.write(file.begin(one, 0, lost=3), word(ACQUIRE, 1))
    file.write(file.begin(two, 0, 1, base=5, lost=4), word(Kind.THREAD_END, 1))
    (update,) = reader.poll(100)
    assert update.file.lost == 7


def test_a_file_that_is_cut_off_or_full_of_holes_is_read_as_far_as_it_goes(
    file: TracerFile, reader: LiveReader
) -> None:
    at = file.chunk(0)
    file.write(at, word(ACQUIRE, 10), word(RELEASE, 20))
    os.truncate(file.path, file.path.stat().st_size + 5000)
    assert seen(reader.poll(50)) == [(0, 3, 10), (0, 4, 20)]
    os.truncate(file.path, 1 << 40)
    assert seen(reader.poll(60)) == []
    os.truncate(file.path, 100)
    with pytest.raises(RecordingError, match="it was cut off meanwhile"):
        reader.poll(70)


def test_events_of_impossible_times_are_left_out_and_counted(file: TracerFile, reader: LiveReader) -> None:
    one, two = file.chunk(0), file.chunk(1, base=1 << 62)
    file.write(one, word(ACQUIRE, 10), word(RELEASE, 20))
    file.write(two, word(ACQUIRE, 10), word(RELEASE, 20))
    (update,) = LiveReader(reader.folder, alive=lambda pid: False).poll(50)
    assert seen([update]) == [(0, 3, 10), (0, 4, 20)]
    assert update.file.lost == 2


def test_small_chunks_come_one_by_one(file: TracerFile, reader: LiveReader) -> None:
    places = file.stretch()
    assert seen(reader.poll(1000)) == []
    file.write(file.small(places[0], 1, name="short"), word(ACQUIRE, 10), word(RELEASE, 20), word(Kind.THREAD_END, 25))
    (update,) = reader.poll(1000)
    assert (seen([update]), update.threads[1].name) == ([(1, 3, 10), (1, 4, 20), (1, 5, 25)], "short")
    two = file.small(places[1], 2)
    file.write(two, word(ACQUIRE, 30))
    file.write(file.small(places[2], 3), word(Kind.REQUEST, 35))
    assert seen(reader.poll(1000)) == [(2, 3, 30), (3, 1, 35)]
    file.write(two, word(RELEASE, 40))
    file.write(file.small(file.stretch(4)[0], 4), word(ACQUIRE, 50))
    assert seen(reader.poll(1000)) == [(2, 4, 40), (4, 3, 50)]
    assert seen(reader.poll(1000)) == []


def test_a_thread_outgrows_its_small_chunk(file: TracerFile, reader: LiveReader) -> None:
    per_chunk = (layout.SMALL_CHUNK - layout.CHUNK.itemsize) // 8
    file.write(file.small(file.stretch()[0], 0), *(word(ACQUIRE, time) for time in range(1, per_chunk + 1)))
    assert len(seen(reader.poll(10_000))) == per_chunk
    file.write(file.chunk(0, 1, base=1000), word(RELEASE, 5))
    assert seen(reader.poll(10_000)) == [(0, 4, 1005)]


def ran_before(folder: Path, *holders: tuple[int, int]) -> int:
    """Write down who had the GILs as the tracer came: (id of the thread, address); when that is known."""
    meta = Meta.begin("1", ["attach"])
    meta.holders = [[os.getpid(), tid, address] for tid, address in holders]
    meta.thread_names = {"105": "spinner"}
    meta.write(folder)
    return time.monotonic_ns() + 10**9


def test_a_hold_that_began_before_and_does_not_end_is_told(tmp_path: Path, file: TracerFile) -> None:
    known = ran_before(tmp_path, (105, 0x7000))
    waiter = file.chunk(0, name="waiter")
    file.write(waiter, word(Kind.REQUEST, 20), word(Kind.TIMEOUT, 30))
    reader = LiveReader(tmp_path)
    assert reader.poll(1000) == []  # what came before that was seen may not be on record yet
    (update,) = reader.poll(known)
    (hold, *_) = update.events
    assert [kind for _, kind, _ in seen([update])] == [ACQUIRE, Kind.REQUEST, Kind.TIMEOUT]
    number = int(hold["thread"])
    assert (int(hold["time"]), int(hold["gil"])) == (0, 0)
    assert (update.threads[number].tid, update.threads[number].name) == (105, "spinner")
    rule = parse("held>95%/5s")
    assert isinstance(rule, Held)
    (caught,) = rule.see(update, known, Outside())
    assert caught.what == "1.000"
    # It is the same thread when it comes to write, in whatever chunks.
    for sequence, time_ in ((0, 40), (1, 50)):
        file.write(file.chunk(5, sequence, base=time_), word(RELEASE, 1), word(ACQUIRE, 2))
        assert seen(reader.poll(known)) == [(number, RELEASE, time_ + 1), (number, ACQUIRE, time_ + 2)]


@pytest.mark.parametrize("holder", [(105, 0x7000), (0, 0x7000)], ids=["let go", "free"])
@pytest.mark.parametrize("since", [0, 500])
def test_no_hold_is_told_that_has_ended(tmp_path: Path, file: TracerFile, holder: tuple[int, int], since: int) -> None:
    known = ran_before(tmp_path, holder)
    if holder[0]:
        file.write(file.chunk(5), word(RELEASE, 100))
    reader = LiveReader(tmp_path, since_ns=since)
    (update,) = reader.poll(known)
    assert seen([update]) == ([(5, RELEASE, 100)] if holder[0] and not since else [])


def test_the_program_that_a_process_goes_on_with_begins_anew(tmp_path: Path, file: TracerFile) -> None:
    known = ran_before(tmp_path, (105, 0x7000))
    reader = LiveReader(tmp_path)
    assert len(seen(reader.poll(known))) == 1
    TracerFile(tmp_path, 1)
    assert seen(reader.poll(known)) == []

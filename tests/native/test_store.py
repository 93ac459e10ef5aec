"""The tracer's store alone, used by threads that hardly pause: as it is, and under ThreadSanitizer."""

from __future__ import annotations

import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from giltrace import native
from giltrace.recording import layout
from tests.tracing import TARGETS, of_kind, read

SOURCES = Path(native.__file__).parent / "tracer"
UNITS = ("pieces", "bus", "file", "guard", "clock", "ring", "stretch", "room", "count", "store_file", "store")
RECORDINGS = 20
WATCHED = pytest.param("watched", marks=pytest.mark.unsanitized)

pytestmark = pytest.mark.needs("cc")


def built(out: Path, *options: str) -> Path:
    sources = [TARGETS / "store.c", *(SOURCES / f"{unit}.c" for unit in UNITS)]
    command: list[str | Path] = ["cc", "-std=c11", "-D_GNU_SOURCE", "-O2", "-g", *options, "-iquote", SOURCES]
    subprocess.run([*command, *sources, "-o", out, "-lpthread"], check=True, timeout=100)
    return out


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("store") / "plain")


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("store") / "watched", "-fsanitize=thread")


def run(program: Path, how: str, folder: Path) -> list[tuple[int, int, int]]:
    """What it printed: the number of a recording, a thread, and how many events of it that has at least."""
    ran = subprocess.run([program, how, folder], capture_output=True, text=True, timeout=100, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    rows = (line.split() for line in ran.stdout.splitlines())
    return [(int(number), int(tid), int(least)) for number, tid, least in rows]


def recorded(folder: Path, number: int) -> Counter[int]:
    """How many events each thread has in a recording, by its id; each thread is there once, and nothing was lost."""
    (process,) = read(folder / str(number))
    assert process.lost == 0
    tids = [thread.tid for thread in process.threads]
    assert len(set(tids)) == len(tids)
    counts = np.bincount(of_kind(process.events, layout.Kind.ACQUIRE)["thread"], minlength=len(tids))
    return Counter(dict(zip(tids, map(int, counts), strict=True)))


def test_what_happens_between_recordings_is_in_none(plain: Path, tmp_path: Path) -> None:
    run(plain, "between", tmp_path)
    assert [sum(recorded(tmp_path, number).values()) for number in (0, 1)] == [1, 1000]


@pytest.mark.parametrize("build", ["plain", WATCHED])
def test_each_recording_has_every_thread(request: pytest.FixtureRequest, build: str, tmp_path: Path) -> None:
    rows = run(request.getfixturevalue(build), "series", tmp_path)
    found = {number: recorded(tmp_path, number) for number in {row[0] for row in rows}}
    assert len(found) == RECORDINGS
    assert not [row for row in rows if found[row[0]][row[1]] < row[2]]


@pytest.mark.unsanitized
def test_rings_begin_and_end_beside_threads(watched: Path, tmp_path: Path) -> None:
    rows = run(watched, "ring", tmp_path)
    for number in {row[0] for row in rows}:
        (file,) = (tmp_path / str(number)).glob("gil-*.bin")
        assert file.stat().st_size <= 1 << 18
        assert set(recorded(tmp_path, number)) == {row[1] for row in rows}


def test_files_that_are_cut_off_all_the_time(plain: Path, tmp_path: Path) -> None:
    assert run(plain, "cut", tmp_path)
    notes = {process.note for number in range(RECORDINGS) for process in read(tmp_path / str(number))[1:]}
    assert any("cut off" in note for note in notes)


@pytest.mark.unsanitized("tsan")
def test_a_stretch_that_is_cut_off_is_left_though_the_file_grew_again(plain: Path, tmp_path: Path) -> None:
    after = sum(least for number, _, least in run(plain, "regrown", tmp_path) if number == 1)
    cut, whole = sorted(read(tmp_path / "0"), key=lambda process: process.start)
    assert "cut off" in whole.note
    # Six threads at a time: each may have lost an event or two as that was noticed.
    assert after - 12 <= len(of_kind(whole.events, layout.Kind.ACQUIRE)) <= after
    assert len(of_kind(cut.events, layout.Kind.ACQUIRE)) == 1 + 300


def test_a_child_may_give_back_late_what_it_inherited(plain: Path, tmp_path: Path) -> None:
    run(plain, "child", tmp_path)
    parent, child = sorted(read(tmp_path / "0"), key=lambda process: process.start)
    assert (len(parent.events), len(child.events)) == (1, 3000)


@pytest.mark.unsanitized("tsan")
def test_threads_that_end_soon_share_pieces(plain: Path, tmp_path: Path) -> None:
    rows = run(plain, "brief", tmp_path)
    parent, child = sorted(read(tmp_path / "0"), key=lambda process: process.start)
    for number, process in enumerate((parent, child)):
        assert process.lost == 0
        counts = np.bincount(of_kind(process.events, layout.Kind.ACQUIRE)["thread"])
        found = {thread.tid: int(count) for thread, count in zip(process.threads, counts, strict=True)}
        assert found == {tid: count for one, tid, count in rows if one == number}
        (path,) = (tmp_path / "0").glob(f"gil-{process.pid}-*.bin")
        # A small chunk holds 23 events and the thread's end; who has more goes on in a larger one.
        outgrown = sum(count > 23 for count in found.values())
        small = -(-len(found) // (127 / 128)) * layout.SMALL_CHUNK
        assert path.stat().st_size <= small + 2 * (1 << 16) + (outgrown + 2) * layout.LEAST_CHUNK


@pytest.mark.unsanitized("tsan")
@pytest.mark.parametrize("build", ["plain", WATCHED])
def test_threads_that_end_soon_without_system_calls(request: pytest.FixtureRequest, build: str, tmp_path: Path) -> None:
    rows = run(request.getfixturevalue(build), "brief-confined", tmp_path)
    assert recorded(tmp_path, 0) == {tid: count for _, tid, count in rows}


@pytest.mark.unsanitized("tsan")
@pytest.mark.parametrize("build", ["plain", WATCHED])
def test_without_system_calls_there_is_room_for_all(request: pytest.FixtureRequest, build: str, tmp_path: Path) -> None:
    rows = run(request.getfixturevalue(build), "confined", tmp_path)
    assert recorded(tmp_path, 0) == {tid: count for _, tid, count in rows}


@pytest.mark.unsanitized("tsan")
def test_without_system_calls_a_ring_goes_round(plain: Path, tmp_path: Path) -> None:
    rows = run(plain, "confined-ring", tmp_path)
    (process,) = read(tmp_path / "0")
    assert (process.lost, process.note) == (0, "no use of a GIL was seen")
    assert process.overwritten > 0
    assert {thread.tid for thread in process.threads} <= {row[1] for row in rows}
    (file,) = (tmp_path / "0").glob("gil-*.bin")
    assert file.stat().st_size <= 1 << 18


@pytest.mark.parametrize("how", ["together", "together-ring"])
def test_what_belongs_to_a_block_stands_with_it(plain: Path, how: str, tmp_path: Path) -> None:
    run(plain, how, tmp_path)
    (process,) = read(tmp_path / "0")
    slept = of_kind(process.events, layout.Kind.SLEPT)
    places = process.places[slept["arg"]]
    numbers = (places["semaphore"] >> np.uint64(26)).astype(np.int64)
    last = 20000
    assert process.lost == 0
    assert numbers.tolist() == list(range(last + 1 - len(numbers), last + 1))
    assert (len(numbers) == last) == (how == "together")
    assert (places["semaphore"] & np.uint64((1 << 26) - 1) == 1 << 21).all()
    locks = np.where(numbers % 2 == 0, numbers << 26 | 1 << 20, 0)
    assert places["lock"].tolist() == locks.tolist()
    assert slept["flags"].tolist() == (numbers % 8).tolist()
    held = [
        (time, number << 26 | one)
        for time, number in zip(slept["time"].tolist(), numbers.tolist(), strict=True)
        for one in range(number % 7)
    ]
    found = process.held[process.held["time"] >= slept["time"][0]]
    assert list(zip(found["time"].tolist(), found["semaphore"].tolist(), strict=True)) == held
    assert np.count_nonzero(process.events["kind"] == layout.Kind.AWOKE) == pytest.approx(len(numbers) / 5, abs=1)

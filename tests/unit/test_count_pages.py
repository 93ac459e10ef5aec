"""Pages of counts that somebody has damaged, cut off or taken away: read soon, in little memory, or refused."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from giltrace.errors import RecordingError
from giltrace.launch.counting import Holder
from giltrace.metrics import layout
from giltrace.metrics.before import Before
from giltrace.metrics.count_file import CountFile, CutOff
from giltrace.metrics.page import Pages
from giltrace.metrics.reading import BUCKETS, Counts
from giltrace.metrics.roles import MOST, UNNAMED, Roles
from giltrace.recording import layout as recorded
from giltrace.recording.door import MAX_COUNT, Source

NO_PID = 4_194_304  # Linux has none so high
EVEN = 2**32 - 2


def page(folder: Path, pieces: int, fill: int) -> tuple[Path, np.ndarray[tuple[int], np.dtype[np.uint8]]]:
    """A page of so many pieces, all of the same byte but for its magic and version; and its bytes, to be changed."""
    data = np.full(pieces * layout.PIECE, fill, np.uint8)
    head = data[: layout.HEAD.itemsize].view(layout.HEAD)
    head["magic"], head["version"] = layout.MAGIC, layout.VERSION
    beside = np.zeros(1, recorded.HEADER)
    beside["magic"], beside["pid"], beside["python"] = recorded.MAGIC, NO_PID, b"3.12.1"
    (folder / f"gil-{NO_PID}-0.bin").write_bytes(beside.tobytes().ljust(recorded.HEADER_SIZE, b"\0"))
    return folder / f"count-{NO_PID}-0.bin", data


def tallies(data: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    """Those of the second piece, to be changed."""
    count = layout.PIECE // layout.TALLY.itemsize
    return data[layout.PIECE : layout.PIECE + count * layout.TALLY.itemsize].view(layout.TALLY)


@pytest.mark.parametrize("fill", [0, 1, 2, 0x7F, 0x80, 0xFF])
@pytest.mark.parametrize("state", [None, *layout.TallyState, 77])
def test_numbers_that_make_no_sense_are_read(tmp_path: Path, fill: int, state: int | None) -> None:
    path, data = page(tmp_path, 2, fill)
    if state is not None:
        tallies(data)["state"] = state
    path.write_bytes(data.tobytes())
    (reading,) = Pages(tmp_path).read()
    assert reading.ended
    assert len(reading.culprits) <= layout.PLACES
    assert all(text.isprintable() for thread in reading.threads for text in (thread.name, thread.role))
    assert reading.counts.holds >= 0


@pytest.mark.parametrize("field", ["gil", "number", "forced", "requests", "buckets"])
def test_a_tally_that_no_tracer_writes_is_left_out(tmp_path: Path, field: str) -> None:
    """An exporter cannot tell such counts, and there are not so many GILs."""
    path, data = page(tmp_path, 2, 0)
    tallies(data)["state"], tallies(data)["number"] = layout.TallyState.LIVES, 3
    tallies(data)[field][0] = recorded.MAX_GILS if field == "gil" else MAX_COUNT
    path.write_bytes(data.tobytes())
    (reading,) = Before(tmp_path, [Holder(NO_PID, 0, "", 1)]).added_to(Pages(tmp_path).read(), alive=True)
    assert reading.counts.holds == 3 * (len(tallies(data)) - 1)


def test_a_line_that_was_there_more_often_than_can_be_is_left_out(tmp_path: Path) -> None:
    path, data = page(tmp_path, 1, 0)
    tables = data[: layout.HEAD.itemsize].view(layout.HEAD)["tables"][0]
    tables["used"], tables["ticks"] = 2, 1
    tables["times"][:, :2] = MAX_COUNT, 5
    path.write_bytes(data.tobytes())
    (reading,) = Pages(tmp_path).read()
    told = (reading.culprits, reading.victims, reading.blocked)
    assert [line.times for lines in told for line in lines] == [5, 5, 5]
    assert [cause.blocks for cause in reading.causes] == [5]


def test_a_time_to_come_is_bounded(tmp_path: Path) -> None:
    """Or it is more than an exporter can tell once it is one of the clock on the wall."""
    path, data = page(tmp_path, 1, 0)
    data[: layout.HEAD.itemsize].view(layout.HEAD)["start_ns"] = 2**64 - 1
    path.write_bytes(data.tobytes())
    (reading,) = Pages(tmp_path).read()
    assert reading.started_ns + time.time_ns() < 2**63


def test_a_page_that_is_always_in_change_is_read_in_few_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = page(tmp_path, layout.MOST_PIECES, 1)
    path.write_bytes(data.tobytes())
    looks = 0
    read = Source.read

    def counted(self: Source, at: int, count: int) -> bytes:
        nonlocal looks
        looks += 1
        return read(self, at, count)

    monkeypatch.setattr(Source, "read", counted)
    file = CountFile(path)
    _, found = file.read()
    file.close()
    assert len(found) > 3000
    assert looks < 10_000


def test_one_that_is_cut_off_between_two_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = page(tmp_path, 2, 0)
    tallies(data)["state"] = layout.TallyState.LIVES
    tallies(data)["version"] = 1
    path.write_bytes(data.tobytes())
    file = CountFile(path)
    read = Source.read

    def cut(self: Source, at: int, count: int) -> bytes:
        found = read(self, at, count)
        if count == layout.PIECE * layout.MOST_PIECES:
            os.truncate(path, layout.PIECE)
        return found

    monkeypatch.setattr(Source, "read", cut)
    with pytest.raises(CutOff):
        file.read()
    file.close()


def test_a_link_in_its_place_is_not_written_to(tmp_path: Path) -> None:
    path, data = page(tmp_path, 1, 0)
    path.write_bytes(data.tobytes())
    other = tmp_path / "other"
    other.write_bytes(bytes(4096))
    pages = Pages(tmp_path)
    pages.read()
    path.rename(tmp_path / "moved")
    path.symlink_to(other)
    pages.read(reset_longest=True)
    assert other.read_bytes() == bytes(4096)
    head = np.frombuffer((tmp_path / "moved").read_bytes(), layout.HEAD, 1)[0]
    assert head["reading"] == 1


def test_one_that_cannot_be_opened_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, data = page(tmp_path, 1, 0)
    path.write_bytes(data.tobytes())

    def refuse(path: Path) -> CountFile:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("giltrace.metrics.page.CountFile", refuse)
    with pytest.raises(RecordingError, match="Permission denied"):
        Pages(tmp_path).read()


def held(number: int) -> Counts:
    """So many holds, of a microsecond each."""
    return Counts(holds=number, held_ns=1000 * number, hold_lengths=(number, *(0,) * (BUCKETS - 1)))


def test_what_has_gone_to_the_nameless_is_not_there_twice() -> None:
    roles = Roles()
    assert roles.update({"a": held(5), "b": held(7)}) == {"a": held(5), "b": held(7)}
    # A thread of role a has ended, and another one lives.
    assert roles.update({"a": held(2), "b": held(8), UNNAMED: held(6)}) == {
        "a": held(5),
        "b": held(8),
        UNNAMED: held(3),
    }
    # It has ended too, and so has one that nobody has seen.
    assert roles.update({"b": held(8), UNNAMED: held(20)}) == {"a": held(5), "b": held(8), UNNAMED: held(15)}
    assert roles.update({"a": held(1), "b": held(9), UNNAMED: held(20)}) == {
        "a": held(6),
        "b": held(9),
        UNNAMED: held(15),
    }


def test_so_many_roles_are_kept_apart_and_no_more() -> None:
    roles, ended = Roles(), 0
    for number in range(1000):
        said = roles.update({f"w-{chr(ord('a') + number)}": held(3), UNNAMED: held(ended)})
        ended += 3
        assert sum(counts.holds for counts in said.values()) == ended
    assert len(said) == MOST + 1

"""Events that are written from outside read back the same, and so does a file that is still growing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from giltrace.native.observe import EVENT
from giltrace.recording import layout
from giltrace.recording.events import ProcessEvents
from giltrace.recording.gil import read_processes
from giltrace.recording.gil_writer import GilWriter
from giltrace.recording.layout import Kind

START = 5_000_000_000_000
TIDS = np.array([70, 71, 72], np.uint32)


def writer(folder: Path) -> GilWriter:
    header = np.zeros(1, layout.HEADER)
    header["version"], header["pid"] = layout.VERSION, 70
    header["start_ticks"] = header["start_ns"] = START
    header["status"] = layout.Status.GIL_SEEN | layout.Status.OBSERVED
    return GilWriter(folder, header)


def events(count: int, step: int = 1000) -> npt.NDArray[np.void]:
    """Holds by the three threads in turn."""
    made = np.zeros(count, EVENT)
    made["time"] = START + step * np.arange(count)
    made["thread"] = np.arange(count) // 2 % 3
    made["kind"] = np.where(np.arange(count) % 2 == 0, Kind.ACQUIRE, Kind.RELEASE)
    made["flags"] = np.arange(count) % 4 == 3
    made["gil"] = np.arange(count) % 5
    return made


def read(folder: Path) -> ProcessEvents:
    (process,), _ = read_processes(folder)
    return process


@pytest.mark.parametrize(("count", "step"), [(12, 1000), (20_000, 1000), (30, 1 << 40)])
def test_reads_back_the_same(tmp_path: Path, count: int, step: int) -> None:
    made = events(count, step)
    file = writer(tmp_path)
    for part in np.array_split(made, 7):
        file.append(part, TIDS)
    file.close()
    process = read(tmp_path)
    assert [thread.tid for thread in process.threads] == TIDS.tolist()
    for field in ("time", "thread", "kind", "flags", "gil"):
        assert (process.events[field] == made[field]).all(), field
    acquires = process.events["kind"] == Kind.ACQUIRE
    assert (process.events["arg"][acquires] == layout.NO_CORE).all()


def test_can_be_read_while_it_grows(tmp_path: Path) -> None:
    file = writer(tmp_path)
    made = events(3000)
    for end in (1, 2, 500, 3000):
        have = len(read(tmp_path).events)
        file.append(made[have:end], TIDS)
        assert (read(tmp_path).events["time"] == made["time"][:end]).all()
    file.close()


def test_names_count_from_whenever_they_become_known(tmp_path: Path) -> None:
    file = writer(tmp_path)
    file.name(0, "before")
    file.append(events(12), TIDS)
    file.name(1, "after")
    file.name(2, "ä" * 60)
    file.close()
    before, after, long = (thread.name for thread in read(tmp_path).threads)
    assert (before, after) == ("before", "after")
    assert long == "ä" * 43


def test_says_that_and_how_it_was_sampled(tmp_path: Path) -> None:
    file = writer(tmp_path)
    file.header["samples"], file.header["sampled_ns"] = 1001, 100_000_000
    file.header["switches"], file.header["switches_missed"] = 50, 3
    file.close()
    sampling = read(tmp_path).sampling
    assert sampling is not None
    assert (sampling.interval_ns, sampling.switches, sampling.switches_missed) == (100_000, 50, 3)


def test_a_full_disk_costs_events_and_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = writer(tmp_path)
    file.append(events(12), TIDS)

    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    made = events(12_000)
    file.append(made, TIDS)
    file.close()
    process = read(tmp_path)
    assert process.lost > 10_000
    assert len(process.events) + process.lost == 12_012


def test_a_second_file_of_the_same_process_gets_the_next_number(tmp_path: Path) -> None:
    writer(tmp_path).close()
    writer(tmp_path).close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gil-70-0.bin", "gil-70-1.bin"]

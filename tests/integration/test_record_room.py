"""A recording ends where there is no more room for it, and its program goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import giltrace
from giltrace.launch import room
from giltrace.launch.room import Room

#: Goes on until nothing more is recorded of it, and says so by its status.
PROGRAM = """
import os, pathlib, sys, time
zero = os.open("/dev/zero", os.O_RDONLY)
meta = pathlib.Path("reads.giltrace/meta.json")
until = time.monotonic() + 60
while '"complete"' not in meta.read_text() and time.monotonic() < until:
    for _ in range(10_000):
        os.read(zero, 1)
for _ in range(10_000):
    os.read(zero, 1)
print("still here")
sys.exit(7)
"""


def test_the_program_goes_on_where_its_recording_has_reached_its_size(tmp_path: Path) -> None:
    (tmp_path / "reads.py").write_text(PROGRAM)
    command = [sys.executable, "-m", "giltrace", "record", "--light", "--no-trace", "--max-size", "1MiB"]
    command += ["-o", "reads", "reads.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert (ran.returncode, ran.stdout) == (7, "still here\n")
    assert "giltrace: the recording ends here, the program goes on: it has reached --max-size\n" in ran.stderr
    told = " ".join(ran.stderr.split())
    assert "0 lost events, 0 broken invariants" in told
    assert "recording ended before the program did: it has reached --max-size" in told
    recording = giltrace.load(tmp_path / "reads.giltrace")
    (process,) = recording.timeline.processes
    assert process.end_of == "recording"
    assert len(recording.holds) > 10_000
    meta = json.loads((tmp_path / "reads.giltrace" / "meta.json").read_text())
    assert int(recording.holds["end"].max()) < meta["end_ns"] + 1_000_000_000


def test_a_disk_that_fills_up_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [room.LEAST_FREE * 4]
    monkeypatch.setattr(room, "_free", lambda folder: free[0])
    monkeypatch.setattr(room, "_LOOK_SECONDS", 0)
    told: list[str] = []
    watched = Room(tmp_path, 0, told.append)
    watched.start()
    assert watched.full() == ""
    free[0] = room.LEAST_FREE - 1
    assert watched.full() == "less than 256 MiB are free where it is"
    assert told == ["the recording ends here, the program goes on: less than 256 MiB are free where it is"]


def test_a_disk_that_is_nearly_full_is_left_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [8 << 20]
    monkeypatch.setattr(room, "_free", lambda folder: free[0])
    monkeypatch.setattr(room, "_LOOK_SECONDS", 0)
    watched = Room(tmp_path, 0, lambda text: None)
    watched.start()
    free[0] = 5 << 20
    assert watched.full() == ""
    free[0] = 3 << 20
    assert watched.full() == "less than 4 MiB are free where it is"

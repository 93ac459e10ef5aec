"""Who writes to a recording: by what each process has mapped, and the head of its file."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from giltrace.process.folder import Folder
from giltrace.recording import layout
from giltrace.recording.layout import Status
from giltrace.recording.locate import Writers


def _file(path: Path, status: Status) -> None:
    head = np.zeros(1, layout.HEADER)
    head["status"] = status
    path.write_bytes(head.tobytes().ljust(layout.HEADER_SIZE, b"\0"))


def test_who_has_it_mapped_and_has_not_stopped_writes(tmp_path: Path) -> None:
    path = tmp_path / f"gil-{os.getpid()}-0.bin"
    _file(path, Status.HOOKED)
    with Folder.own(tmp_path) as folder:
        looks = Writers(folder)
        assert looks.look() == []  # not mapped
        with path.open("r+b") as file, mmap.mmap(file.fileno(), layout.HEADER_SIZE) as mapped:
            assert looks.look() == [os.getpid()]
            inside = tmp_path / "gil-7-0.bin"
            path.rename(inside)
            assert looks.look({"7": os.getpid()}) == [os.getpid()]
            mapped[: layout.HEADER.itemsize] = bytes(layout.HEADER.itemsize)
            assert looks.look({"7": os.getpid()}) == []


def test_a_process_that_has_ended_is_not_looked_at_again(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    path = tmp_path / f"gil-{ended.pid}-0.bin"
    _file(path, Status.HOOKED)
    with Folder.own(tmp_path) as folder, path.open("r+b") as file, mmap.mmap(file.fileno(), layout.HEADER_SIZE):
        looks = Writers(folder)
        assert looks.look() == []
        # Whoever has its number now is another one.
        assert looks.look({str(ended.pid): os.getpid()}) == []
        assert Writers(folder).look({str(ended.pid): os.getpid()}) == [os.getpid()]

"""What a program may use is on record, however it is recorded, and whoever limited it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import giltrace
from giltrace.analysis.report import analyse
from giltrace.launch.attach.session import attach
from giltrace.launch.observe import observe
from giltrace.process.folder import Folder
from giltrace.recording import snapshot
from giltrace.timeline.load import load
from giltrace.timeline.model import Cores
from tests.tracing import TARGETS, recorded

PINNED = TARGETS / "pinned.py"
MACHINE = os.cpu_count() or 1


def test_a_program_that_pins_itself(tmp_path: Path) -> None:
    folder = tmp_path / "pinned.giltrace"
    (tmp_path / "meanwhile").mkdir()
    with recorded(PINNED, folder) as pid:
        assert pid > 0
        # As a flight recorder does, while it is written.
        snapshot.copy(Folder.own(folder), tmp_path / "meanwhile", Folder.own(folder))
    assert {path.name for path in folder.glob("cores.bin")} == {"cores.bin"}
    timeline = load(folder)
    (process,) = timeline.processes
    assert process.cores is not None
    assert process.cores.cpus == 1
    (report,) = analyse(timeline).processes
    assert report.what_if.cores == 1
    assert [point.speedup_bound for point in report.what_if.by_cores] == [1.0]
    assert (report.what_if.on_all is not None) == (MACHINE > 1)
    assert report.limits.startswith(f"may use 1 of {MACHINE} cores" if MACHINE > 1 else "")
    assert (tmp_path / "meanwhile/cores.bin").stat().st_size > 0
    (folder / "cores.bin").unlink()
    assert [one.cores for one in load(folder).processes] == [None]


@pytest.mark.parametrize("way", ["attach", "observe"])
def test_a_program_that_runs_already(way: str, tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, PINNED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as target:
        assert target.stdout is not None
        assert target.stdout.readline() == "ready\n"
        if way == "attach":
            attach(target.pid, tmp_path / "a.giltrace", [], depth=8, seconds=0.1)
        else:
            observe(target.pid, tmp_path / "a.giltrace", [], seconds=0.1)
        target.communicate("\n", timeout=60)
    found = load(tmp_path / "a.giltrace").processes
    assert {one.cores.cpus for one in found if one.cores is not None} == {1}


def test_a_program_that_traces_itself(tmp_path: Path) -> None:
    program = f"import giltrace\nwith giltrace.trace({str(tmp_path / 'own')!r}): sum(range(1000))"
    cores = sorted(os.sched_getaffinity(0))[:1]
    command = [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {cores})\n{program}"]
    subprocess.run(command, check=True, timeout=60)
    (process,) = giltrace.load(tmp_path / "own").timeline.processes
    assert process.cores == Cores(1, process.cores.quota if process.cores else None)

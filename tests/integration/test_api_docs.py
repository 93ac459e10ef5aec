"""The examples of docs/api.md run as they stand on a real recording."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import giltrace
from giltrace.errors import GiltraceError
from tests.integration.test_record import THREADS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "api.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``out.giltrace`` is a recording of three threads."""
    folder = tmp_path_factory.mktemp("api")
    command = [sys.executable, "-m", "giltrace", "record", "--light", "--python", sys.executable, "-o", "out"]
    subprocess.run([*command, "-c", THREADS], cwd=folder, check=True, capture_output=True, timeout=90)
    return folder


@pytest.fixture
def inside(folder: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def test_examples_run(inside: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    assert len(EXAMPLES) >= 7
    for example in EXAMPLES:
        if "pandas" in example:
            pytest.importorskip("pandas")
        exec(compile(example, str(PAGE), "exec"), names)
    shown = capsys.readouterr().out
    assert "there is no recording gone.giltrace\n  name a NAME.giltrace folder" in shown
    assert re.search(r"^from-within\.giltrace \[.*'sleeper'", shown, re.M)
    assert re.search(r"^Verdict: [a-z-]+$", shown, re.M)
    assert re.search(r"^w-0 +held the GIL for \d+\.\d+ ms$", shown, re.M)
    assert isinstance(names["recording"], giltrace.Recording)


def test_arrays_agree_with_the_summary(folder: Path) -> None:
    recording = giltrace.load(folder / "out.giltrace")
    (summary,) = recording.summary().processes
    assert [t.name for t in summary.threads] == recording.threads.name.tolist()
    for row, thread in enumerate(summary.threads):
        holds = recording.holds[recording.holds.thread == row]
        waits = recording.waits[recording.waits.thread == row]
        assert (len(holds), len(waits)) == (thread.holds, thread.waits)
        assert int((waits.end - waits.start).sum()) == thread.waited_ns
    assert {"w-0", "w-1", "w-2", "MainThread"} == set(recording.threads.name)


@pytest.mark.parametrize("name", ["out", "out.giltrace", "out.pftrace"])
def test_every_name_of_a_recording_loads_it(folder: Path, name: str) -> None:
    assert giltrace.load(folder / name).path == folder / "out.giltrace"


def test_a_folder_that_is_no_recording_is_an_expected_error(tmp_path: Path) -> None:
    with pytest.raises(GiltraceError, match=r"not a giltrace recording"):
        giltrace.load(tmp_path)

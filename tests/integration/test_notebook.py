"""``%giltrace`` and ``%%giltrace`` in a notebook's kernel, asked as a notebook asks it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import giltrace

nbformat = pytest.importorskip("nbformat", reason="needs nbformat")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient, which runs notebooks")
pytest.importorskip("ipykernel", reason="needs ipykernel, which is a notebook's Python")

LOAD = "%load_ext giltrace"
SPIN = """
import threading
def spin(number):
    while number:
        number -= 1
    return "spun"
"""
TWO = """
threads = [threading.Thread(target=spin, args=(1_500_000,), name=f"spinner_{at}") for at in range(2)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for the kernel to be in, and for what it would leave in a home."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "TMPDIR"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(name, str(tmp_path / name))
    return tmp_path


def outputs(folder: Path, *cells: str) -> list[list[Any]]:
    """What each cell of a notebook put out; one that fails is no end."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(
        notebook, timeout=100, kernel_name="python3", allow_errors=True, resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    assert list((folder / "TMPDIR").glob("giltrace-*")) == []
    return [cell.outputs for cell in notebook.cells]


def shown(output: list[Any]) -> dict[str, str]:
    """The one thing that was shown with HTML."""
    (found,) = (one["data"] for one in output if "text/html" in one.get("data", {}))
    return dict(found)


def error(output: list[Any]) -> str:
    return "".join(one.get("text", "") + "".join(one.get("traceback", [])) for one in output)


@pytest.mark.timeout(110)
def test_cells_statements_results_and_errors(folder: Path) -> None:
    loaded, _, cell, statement, failed, after = outputs(
        folder,
        LOAD,
        SPIN,
        f"%%giltrace\n{TWO}spin(3)",
        "%giltrace -s 5 spin(3_000_000)",
        "%%giltrace\nspin(3)\n1/0",
        "2+2",
    )
    assert loaded == []
    data = shown(cell)
    assert "Verdict: cpu-bound-contention" in data["text/html"]
    assert "spinner_0" in data["text/html"]
    assert data["text/html"].count("<svg ") == 1
    assert "<script" not in data["text/html"]
    assert re.search(r"spinner_\*: spin \(In\[2\]:[45]\)", data["text/html"])
    assert re.search(r"spinner_\*: spin \(In\[2\]:[45]\)", data["text/plain"])
    assert [one["data"]["text/plain"] for one in cell if one["output_type"] == "execute_result"] == ["'spun'"]
    assert [one["data"]["text/plain"] for one in statement if one["output_type"] == "execute_result"] == ["'spun'"]
    assert "Verdict: single-threaded" in shown(statement)["text/html"]
    assert "ZeroDivisionError" in error(failed)
    assert "Verdict:" in shown(failed)["text/html"]
    assert after[0]["data"]["text/plain"] == "4"


@pytest.mark.timeout(110)
def test_a_recording_that_is_kept_names_cells_too(folder: Path) -> None:
    _, _, first, taken, again = outputs(
        folder, LOAD, SPIN, f"%%giltrace -o kept\n{TWO}", "%giltrace -o kept spin(3)", f"%%giltrace -f -o kept\n{TWO}"
    )
    assert "recording kept.giltrace" in shown(first)["text/plain"]
    assert "UsageError: kept.giltrace exists" in error(taken)
    assert "Verdict" in shown(again)["text/html"]
    recording = giltrace.load(folder / "kept")
    (process,) = recording.timeline.processes
    assert process.stacks is not None
    assert {"In[2]", "In[5]"} <= set(process.stacks.table.strings)
    assert "spin (In[2]:" in str(recording.report())


@pytest.mark.timeout(110)
def test_errors_of_giltrace_that_the_code_meets_are_the_codes_own(folder: Path) -> None:
    code = "%%giltrace\nimport giltrace\ngiltrace.load('nowhere')"
    _, failed = outputs(folder, LOAD, code)
    assert "RecordingError" in error(failed)
    assert "giltrace.load('nowhere')" in re.sub(r"\x1b\[[\d;]*m", "", error(failed))
    assert "Verdict:" in shown(failed)["text/html"]


@pytest.mark.timeout(110)
def test_wrong_use_is_told_in_a_line(folder: Path) -> None:
    wrong = {
        "%giltrace": "there is no code to run",
        "%%giltrace spin(3)\n1": "takes options only on its line",
        "%giltrace -s many 1": "-s many is no number of frames",
        "%giltrace -x 1": "option -x not recognized",
        "%%giltrace\nawait nothing()": "with giltrace.trace() as recording: await",
        "import giltrace\nwith giltrace.trace():\n    get_ipython().run_line_magic('giltrace', '1')": "traced already",
    }
    _, *told = outputs(folder, LOAD, *wrong)
    for output, expected in zip(told, wrong.values(), strict=True):
        assert re.fullmatch(r"UsageError: .*\n?", error(output), re.S), output
        assert expected in error(output)
    assert len(error(told[0]).splitlines()) == 1

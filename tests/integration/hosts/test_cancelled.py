"""A cancellation that is pending is taken where the bare program takes it, and nowhere in the tracer."""

from __future__ import annotations

import subprocess
import textwrap
from pathlib import Path

import pytest

from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, of_kind, read, traced_environment

HOST = """
    import ctypes, sys
    library, names = ctypes.CDLL(sys.argv[1]), ("PyGILState_Ensure", "PyGILState_Release",
                                                "PyEval_SaveThread", "PyEval_RestoreThread")
    library.set(*(ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p) for name in names))
    print(getattr(library, sys.argv[2])())
"""


@pytest.fixture(scope="module")
def helper(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("cancelled") / "cancelled.so"
    source = TARGETS / "hosts" / "cancelled.c"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-pthread", "-o", out, source], check=True, timeout=60)
    return out


@pytest.mark.needs("cc")
@pytest.mark.parametrize(("moment", "uses"), [("every_use", (20000,)), ("child", (1, 2000)), ("end", (10,))])
def test_pending_cancellation(
    interpreter: Interpreter, tmp_path: Path, helper: Path, moment: str, uses: tuple[int, ...]
) -> None:
    append_pair(tmp_path)
    command: list[str | Path] = [interpreter.path, "-c", textwrap.dedent(HOST), helper, moment]
    ran = subprocess.run(
        command, env=traced_environment(tmp_path), capture_output=True, text=True, timeout=60, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "1\n", "")
    processes = sorted(read(tmp_path), key=lambda process: process.start)
    assert len(processes) == len(uses)
    for process, least in zip(processes, uses, strict=True):
        assert (process.lost, process.note) == (0, "")
        last = of_kind(process.events, layout.Kind.ACQUIRE)["thread"] == len(process.threads) - 1
        assert least <= last.sum() <= least + 4

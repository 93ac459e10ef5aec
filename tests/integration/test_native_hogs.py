"""`giltrace record --native`: the C function of a hog, on real programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import giltrace
from tests.collecting import check_nesting
from tests.interpreters import Interpreter
from tests.tracing import TARGETS

GILTRACE = [sys.executable, "-m", "giltrace"]


def record(folder: Path, *words: object) -> subprocess.CompletedProcess[str]:
    command = [*GILTRACE, "record", *map(str, words)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)


def hogs(folder: Path) -> dict[str, dict[str, Any]]:
    told = subprocess.run([*GILTRACE, "report", "x", "--json"], cwd=folder, capture_output=True, text=True, check=True)
    (process,) = json.loads(told.stdout)["processes"]
    return {hog["site"]["thread"]: hog for hog in process["hogs"]}


def has_symbols(interpreter: Interpreter) -> bool:
    """Whether the interpreter's own functions have names: distributions strip them."""
    program = interpreter.path.resolve()
    files = [program, *program.parent.parent.glob("lib/libpython3.*.so.*")]
    return any(b"sre_ucs1_match" in file.read_bytes() for file in files)


def test_the_c_function_of_each_hog_is_named(tmp_path: Path, interpreter: Interpreter) -> None:
    if interpreter.version >= (3, 14):
        pytest.skip("py-spy does not know this version")
    target = TARGETS / "native_hogs.py"
    options = ("--native", "--without", "viztracer", "--python", interpreter.path, "-o", "x")
    ran = record(tmp_path, *options, target)
    assert ran.returncode == 0, ran.stderr
    found = hogs(tmp_path)
    assert all(found[name]["samples"] > 0 for name in ("sleeping", "matching", "summing"))
    sleeping, matching, summing = found["sleeping"], found["matching"], found["summing"]
    assert any(frame.startswith("usleep (") for frame in sleeping["c_stack"]), sleeping
    assert "libc" in sleeping["c_file"]
    assert sleeping["c_function"].endswith("nanosleep")
    assert 0 < sleeping["c_samples"] <= sleeping["samples"]
    if has_symbols(interpreter):
        assert matching["c_function"].startswith("sre_"), matching
    else:
        assert matching["c_function"] is None
    # py-spy leaves out most of the interpreter's own functions.
    assert (summing["c_function"], summing["c_samples"]) == (None, 0)
    for spans in giltrace.load(tmp_path / "x").timeline.processes[0].spans:
        check_nesting(spans)


def test_that_the_program_was_paused_is_said_wherever_collectors_are(tmp_path: Path) -> None:
    ran = record(tmp_path, "--native", "--without", "viztracer", "-o", "x", TARGETS / "native_hogs.py")
    page = subprocess.run([*GILTRACE, "report", "x"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    as_json = subprocess.run([*GILTRACE, "report", "x", "--json"], cwd=tmp_path, capture_output=True, text=True).stdout
    (pyspy,) = [one for one in json.loads(as_json)["quality"]["collectors"] if one["name"] == "py-spy"]
    for told in (ran.stderr, page, pyspy["cost"]):
        assert "it paused the target at each sample" in " ".join(told.split())
    assert "In C: " in " ".join(page.split())


@pytest.mark.parametrize("options", [["--light"], ["--without", "py-spy"]], ids=" ".join)
def test_native_without_pyspy_is_refused_before_anything_starts(options: list[str], tmp_path: Path) -> None:
    ran = record(tmp_path, "--native", *options, "-o", "x", "-c", "print('started')")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "--native needs py-spy" in ran.stderr
    assert list(tmp_path.iterdir()) == []

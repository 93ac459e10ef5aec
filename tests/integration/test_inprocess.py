"""`giltrace.trace`: start and stop the tracer within a running process, again and again."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import giltrace
from tests.tracing import TARGETS, traced_environment


def run(folder: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(TARGETS / "inprocess.py"), str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=env)


def test_a_process_traces_itself_again_and_again(tmp_path: Path) -> None:
    ran = run(tmp_path)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    for number, recording in enumerate(found["recordings"]):
        assert recording["violations"] == []
        assert recording["lost"] == 0
        assert recording["gils"] == 1
        # A thread that only ever waited for its first turn may not have had one; the block's own did.
        assert {"MainThread", f"brief-{number}"} <= set(recording["threads"])
        assert set(recording["threads"]) <= {"MainThread", "old-spinner", f"brief-{number}"}
        assert recording["brief"] >= 21
        assert recording["lines"] > 3
    assert found["refused"] == "this process is traced already"
    assert not (tmp_path / "inner.giltrace").exists()
    assert len([name for name in os.listdir(tmp_path / "run-0.giltrace") if name.startswith("gil-")]) == 1


def test_refuses_where_giltrace_record_is_at_work(tmp_path: Path) -> None:
    (tmp_path / "recorder").mkdir()
    ran = run(tmp_path, traced_environment(tmp_path / "recorder"))
    assert ran.returncode != 0
    assert "this process is traced already" in ran.stderr
    assert not (tmp_path / "run-0.giltrace").exists()


CONFINED = f"""
import sys, giltrace
code = open({str(TARGETS / "hosts" / "confining.py")!r}).read()
exec(code[: code.index("gate = ")])
with giltrace.trace(sys.argv[3]):
    confine()
    for thread in run(contend, 100):
        thread.join()
print("alive", flush=True)
os._exit(0)
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter names x86-64's system calls")
@pytest.mark.parametrize("way", ["prctl", "tsync", "kept"])
def test_a_process_that_confines_itself_meanwhile(way: str, tmp_path: Path) -> None:
    words = [sys.executable, "-W", "ignore", "-c", CONFINED, way, "0", str(tmp_path / "x")]
    ran = subprocess.run(words, capture_output=True, text=True, timeout=90, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "alive\n", "")
    timeline = giltrace.load(tmp_path / "x").timeline
    (process,) = timeline.processes
    assert timeline.lost == 0
    assert not timeline.violations
    assert len(process.holds) > 300


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("again", "choose another name, or replace it with force=True"),
        ("file/again", "choose a place that you may write to"),
    ],
)
def test_says_in_words_of_python_what_to_do_about_a_name(name: str, remedy: str, tmp_path: Path) -> None:
    (tmp_path / "again.giltrace").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(giltrace.GiltraceError) as refused, giltrace.trace(tmp_path / name):
        pass
    assert refused.value.remedy == remedy

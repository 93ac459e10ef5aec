"""The viztracer collector on real programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from giltrace.collectors.base import Session
from giltrace.collectors.viztracer import VizTracerCollector
from giltrace.recording.spans import read_spans
from tests.collecting import check_nesting, record, script
from tests.interpreters import Interpreter


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "x.giltrace"
    path.mkdir()
    return path


SHOWS_ITSELF = """
import os, sys
print(sys.path, sys.argv, sys.flags, "sitecustomize" in sys.modules)
print([name for name in sys.modules if "giltrace" in name], os.getcwd(), __name__)
sys.stdout.flush()
os.write(2, b"raw")
def fail():
    raise SystemExit(int(sys.argv[1])) if sys.argv[1] != "-" else ValueError("no")
fail()
"""


@pytest.mark.parametrize("argument", ["0", "5", "-"])
def test_viztracer_changes_nothing_that_the_program_sees(folder: Path, tmp_path: Path, argument: str) -> None:
    argv = [sys.executable, str(script(tmp_path, SHOWS_ITSELF)), argument]
    env = dict(os.environ)
    collector = VizTracerCollector()
    collector.prepare(folder, env)
    bare = subprocess.run(argv, capture_output=True, text=True, check=False)
    traced = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    collector.start(Session(folder, 0, None))
    assert (traced.returncode, traced.stdout, traced.stderr) == (bare.returncode, bare.stdout, bare.stderr)
    assert collector.stop().status == "ok"
    assert any(name.startswith("fail (") for spans in read_spans(folder) for name in spans.names)


def test_viztracer_leaves_other_interpreters_as_they_are(
    folder: Path, tmp_path: Path, any_interpreter: Interpreter
) -> None:
    argv = [str(any_interpreter.path), str(script(tmp_path, SHOWS_ITSELF)), "5"]
    env = dict(os.environ)
    VizTracerCollector().prepare(folder, env)
    bare = subprocess.run(argv, capture_output=True, text=True, check=False)
    traced = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert (traced.returncode, traced.stdout, traced.stderr) == (bare.returncode, bare.stdout, bare.stderr)


@pytest.mark.parametrize("body", ["import builtins; builtins.THEIRS = 1", "1/0"])
def test_viztracer_runs_the_users_own_sitecustomize(folder: Path, tmp_path: Path, body: str) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sitecustomize.py").write_text(body)
    argv = [
        sys.executable,
        "-c",
        "import builtins, sys; print(getattr(builtins, 'THEIRS', 0), sys.modules.get('sitecustomize'))",
    ]
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "own")}
    bare = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    VizTracerCollector().prepare(folder, env)
    traced = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)
    assert (traced.returncode, traced.stdout, traced.stderr) == (bare.returncode, bare.stdout, bare.stderr)


MARKED = """
import multiprocessing, os, sys, threading, time
def marked(out):
    begin = time.monotonic_ns()
    inner()
    print(os.getpid(), threading.get_native_id(), begin, time.monotonic_ns(), file=out, flush=True)
def inner():
    sum(range(1000))
def in_child(path):
    marked(open(path, "a"))
if __name__ == "__main__":
    out = open(sys.argv[1], "a")
    marked(out)
    thread = threading.Thread(target=marked, args=(out,))
    thread.start()
    thread.join()
    for method in "fork", "spawn":
        child = multiprocessing.get_context(method).Process(target=in_child, args=(sys.argv[1],))
        child.start()
        child.join()
    if (pid := os.fork()) == 0:
        marked(out)
        sys.exit(0)
    os.waitpid(pid, 0)
"""


def test_viztracer_spans_lie_where_the_program_says(folder: Path, tmp_path: Path) -> None:
    argv = [sys.executable, script(tmp_path, MARKED), tmp_path / "log"]
    status, (report,) = record(folder, [VizTracerCollector()], argv)
    assert (status, report.status, report.lost) == (0, "ok", 0)
    by_pid = {spans.pid: spans for spans in read_spans(folder)}
    lines = [tuple(map(int, line.split())) for line in (tmp_path / "log").read_text().splitlines()]
    assert len({pid for pid, *_ in lines}) == 4
    for pid, tid, begin, end in lines:
        spans = by_pid[pid]
        inner = [name for name, text in enumerate(spans.names) if text.startswith("inner (")]
        rows = spans.spans[np.isin(spans.spans["name"], inner) & (spans.spans["tid"] == tid)]
        assert len(rows) == 1
        assert begin - spans.clock_error_ns <= rows["start"][0] <= rows["end"][0] <= end + spans.clock_error_ns
        assert not spans.sampled
        check_nesting(spans)
    assert all(path.suffix == ".npz" for path in folder.iterdir())


def test_viztracer_counts_what_its_buffer_could_not_keep(folder: Path) -> None:
    code = "def f(): pass\nfor _ in range(400_000): f()"
    _, (report,) = record(folder, [VizTracerCollector()], [sys.executable, "-c", code])
    (spans,) = read_spans(folder)
    assert spans.lost == report.lost > 0
    assert len(spans.spans) > 200_000
    assert "are lost" in report.cost


@pytest.mark.parametrize("code", ["import os; os._exit(3)", "import os; os.kill(os.getpid(), 9)"])
def test_viztracer_says_what_a_killed_program_cost_it(folder: Path, code: str) -> None:
    status, (report,) = record(folder, [VizTracerCollector()], [sys.executable, "-c", code])
    assert status in (3, -9)
    assert "was killed, ended by os._exit" in report.status
    assert list(folder.iterdir()) == []


def test_viztracer_that_is_not_installed(folder: Path) -> None:
    argv = [sys.executable, "-c", "import sys; print(sys.flags.isolated)"]
    bare = next((path for path in ["/usr/bin/python3"] if os.access(path, os.X_OK)), None)
    reason = VizTracerCollector().available(bare) if bare else None
    if bare is None or reason is None:
        pytest.skip("needs an interpreter without viztracer")
    assert reason == f"not installed for {bare}: {bare} -m pip install viztracer"
    _, (report,) = record(folder, [VizTracerCollector()], [bare, *argv[1:]])
    assert report.status == reason
    assert VizTracerCollector().available(sys.executable) is None


def test_viztracer_makes_room_for_the_programs_own_profiler(folder: Path, tmp_path: Path) -> None:
    code = "import cProfile; p = cProfile.Profile(); p.enable(); len(''); p.disable(); assert p.getstats()"
    status, (report,) = record(folder, [VizTracerCollector()], [sys.executable, "-c", code])
    assert status == 0
    assert report.status.startswith("partial: viztracer lost track and stopped in process ")
    assert report.status.endswith("or the program set a profiler of its own")

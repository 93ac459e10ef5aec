"""The viztracer collector on real programs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from giltrace.collectors.base import Session
from giltrace.collectors.target import giltrace_viztracer
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
    assert len(spans.spans) > 90_000
    assert "are lost" in report.cost


SPENDS = """
import os, sys, threading
def called(n):
    pass
def work():
    for n in range(400_000):
        called(n)
threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert sys.getprofile() is None
assert threading.active_count() == 1
def after():
    pass
after()
if (pid := os.fork()) == 0:
    work()
    sys.exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


def test_viztracer_ends_when_it_has_cost_too_much(folder: Path, tmp_path: Path) -> None:
    status, (report,) = record(folder, [VizTracerCollector()], [sys.executable, script(tmp_path, SPENDS)])
    assert status == 0
    assert report.status.startswith("partial: tracing ended 0.")
    assert "and 1 more, whose calls are so many that it would have cost more than 10 % of the CPU time" in report.status
    parent, *_ = spans = sorted(read_spans(folder), key=lambda one: -len(one.spans))
    assert 90_000 < len(parent.spans) <= 100_000
    calls = sum(len(one.spans) + one.lost for one in spans)
    # A million and more were made; one buffer's worth at a time is looked at, by each thread up to 3.11.
    assert 99_000 < calls < 700_000
    assert not any(name.startswith("after (") for name in parent.names)
    for one in spans:
        check_nesting(one)


@pytest.mark.parametrize(
    ("calls", "call_ns", "slowdown", "cpu", "too_much"),
    [
        (100_000, 300, 1.0, 0.1, False),  # 30 ms, and 60 to write them: there is always room for that
        (200_000, 300, 1.0, 0.2, True),
        (200_000, 300, 1.0, 1.5, False),
        (10_000_000, 300, 1.0, 30.0, True),
        (10_000_000, 300, 1.0, 40.0, False),
        (100_000, 300, 1.05, 3.0, False),  # noise
        (100_000, 300, 1.3, 3.0, True),
    ],
)
def test_viztracer_weighs_what_it_costs(
    calls: int, call_ns: float, slowdown: float, cpu: float, too_much: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "process_time", lambda: cpu)
    recorder = giltrace_viztracer._Recorder("")
    recorder._state.update(calls=calls, call_ns=call_ns, slowdown=slowdown)
    assert recorder._is_too_much() == too_much


def test_viztracer_shares_room_among_processes(folder: Path) -> None:
    (folder / "viztracer-1-1.json").write_bytes(b" " * (49 << 20))  # as one that ended before has left it
    _, (report,) = record(folder, [VizTracerCollector()], [sys.executable, "-c", "print"])
    assert "ended when the others had written 64 MB of calls" in report.status
    assert list(folder.iterdir()) == []


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

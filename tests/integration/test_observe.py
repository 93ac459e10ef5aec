"""Observing a running process from outside: close to exact, no trace in the process, and clear where it cannot be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from giltrace.analysis.report import analyse
from giltrace.collectors.base import Session
from giltrace.collectors.observe import ObserveCollector, Observer
from giltrace.errors import TargetError
from giltrace.native.observe import End
from giltrace.recording.clock_file import append_pair
from giltrace.recording.gil import read_processes
from giltrace.recording.meta import Meta
from giltrace.timeline.build import build_timeline
from giltrace.timeline.load import load
from giltrace.timeline.model import Process
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, traced_environment

GILTRACE = (sys.executable, "-m", "giltrace")
SWITCHES = 150


@contextmanager
def target(python: Path | str, what: str, traced: Path | None = None) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The target, running, and the id of the process to observe."""
    env = traced_environment(traced) if traced is not None else None
    command = [str(python), str(TARGETS / "observed.py"), what]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=env, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        pid = 0
        try:
            pid = int(process.stdout.readline())
            yield process, pid
        finally:
            if pid and pid != process.pid:
                os.kill(pid, signal.SIGKILL)
            process.kill()


def follow(collector: ObserveCollector, observer: Observer, switches: int = SWITCHES) -> None:
    """Let the collector write until the GIL has changed hands so often."""
    while observer.end is End.RUNNING and observer.stats().switches < switches:
        time.sleep(0.02)
        collector.poll()


def process_of(folder: Path) -> Process:
    processes, error = read_processes(folder)
    return build_timeline(
        processes,
        None,
        [],
        start=processes[0].start,
        end=processes[0].start,
        realtime_offset=0,
        boottime_offset=0,
        clock_error_ns=error,
        machine={},
        collectors=[],
    ).processes[0]


def held(process: Process, start: int, end: int) -> dict[int, float]:
    """Each thread's share of the window, by tid."""
    inside = np.minimum(process.holds["end"], end) - np.maximum(process.holds["start"], start)
    sums = np.bincount(process.holds["thread"], np.maximum(inside, 0), len(process.threads))
    return {thread.tid: float(sums[i]) / (end - start) for i, thread in enumerate(process.threads)}


def waits(process: Process, start: int, end: int) -> int:
    return int(np.count_nonzero((process.waits["end"] > start) & (process.waits["end"] <= end)))


def test_agrees_with_the_exact_record_of_the_same_run(interpreter: Interpreter, tmp_path: Path) -> None:
    exact, seen = tmp_path / "exact", tmp_path / "seen"
    exact.mkdir()
    seen.mkdir()
    append_pair(exact)
    with target(interpreter.path, "convoy", exact) as (_, pid):
        observer = Observer(pid)
        collector = ObserveCollector(observer)
        start = time.monotonic_ns()
        collector.start(Session(seen, pid, None))
        follow(collector, observer)
        end = time.monotonic_ns()
        report = collector.stop()
        append_pair(exact)
    assert report.status == "ok"
    truth, found = process_of(exact), process_of(seen)
    assert found.violations == ()
    assert found.lost == 0
    assert found.python.startswith(f"3.{interpreter.version[1]}")
    sampling = found.sampling
    assert sampling is not None
    assert sampling.switches >= SWITCHES
    # A machine with no core to spare leaves gaps in the samples, and the recording says how long they were.
    dense = sampling.typical_gap_ns < 300_000
    assert sampling.switches_missed <= sampling.switches * (0.15 if dense else 0.5)
    expected, got = held(truth, start, end), held(found, start, end)
    for tid, share in expected.items():
        assert got.get(tid, 0.0) == pytest.approx(share, abs=0.02 if dense else 0.1)
    assert waits(found, start, end) == pytest.approx(waits(truth, start, end), rel=0.1 if dense else 0.5)


class TestThreads:
    def test_have_their_names(self, interpreter: Interpreter, tmp_path: Path) -> None:
        with target(interpreter.path, "convoy") as (_, pid):
            observer = Observer(pid)
            collector = ObserveCollector(observer)
            collector.start(Session(tmp_path, pid, None))
            follow(collector, observer)
            collector.stop()
        assert {"cpu-0", "cpu-1", "io-0"} <= {thread.name for thread in process_of(tmp_path).threads}

    def test_of_a_forked_child_are_its_own(self, interpreter: Interpreter, tmp_path: Path) -> None:
        with target(interpreter.path, "fork") as (parent, pid):
            assert pid != parent.pid
            observer = Observer(pid)
            collector = ObserveCollector(observer)
            collector.start(Session(tmp_path, pid, None))
            follow(collector, observer, 30)
            tids = {int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()}
            assert observer.stats().switches_missed <= observer.stats().switches / 2
            collector.stop()
        found = process_of(tmp_path)
        used = {found.threads[i].tid for i in np.unique(found.holds["thread"]).tolist()}
        assert len(used) >= 3
        assert used <= tids


def test_every_interpreter_with_a_gil_of_its_own_is_observed(interpreter: Interpreter, tmp_path: Path) -> None:
    if interpreter.version < (3, 12):
        pytest.skip("interpreters have their own GIL from 3.12 on")
    with target(interpreter.path, "interpreters") as (_, pid):
        observer = Observer(pid)
        assert len(observer.gils) == 2
        collector = ObserveCollector(observer)
        collector.start(Session(tmp_path, pid, None))
        follow(collector, observer, 2 * SWITCHES)
        collector.stop()
    found = process_of(tmp_path)
    assert found.violations == ()
    for gil in (0, 1):
        assert len(np.unique(found.holds["thread"][found.holds["gil"] == gil])) >= 2


class TestTheProcess:
    def test_is_neither_traced_nor_stopped_nor_changed(self, tmp_path: Path) -> None:
        with target(sys.executable, "convoy") as (_, pid):
            folder = Path(f"/proc/{pid}")
            before = (folder / "maps").read_text().count("\n"), len(list((folder / "fd").iterdir()))
            observer = Observer(pid)
            states = set()
            while observer.stats().switches < 30:
                for task in (folder / "task").iterdir():
                    fields = dict(line.split(":\t", 1) for line in (task / "status").read_text().splitlines())
                    assert int(fields["TracerPid"]) == 0
                    states.add(fields["State"][0])
            observer.close()
            assert states <= {"R", "S", "D"}
            assert (folder / "maps").read_text().count("\n") == before[0]
            assert len(list((folder / "fd").iterdir())) == before[1]

    def test_may_end(self) -> None:
        with target(sys.executable, "convoy") as (process, pid):
            observer = Observer(pid)
            process.kill()
            process.wait()
            while observer.end is End.RUNNING:
                time.sleep(0.001)
            assert observer.end is End.GONE
            observer.close()

    def test_may_become_another_program(self) -> None:
        with target(sys.executable, "replaced") as (process, pid):
            observer = Observer(pid)
            assert process.stdin is not None
            process.stdin.write("now\n")
            process.stdin.flush()
            while observer.end is End.RUNNING:
                time.sleep(0.001)
            assert observer.end in (End.REPLACED, End.SENSELESS, End.GONE)
            observer.close()


class TestRefusals:
    def test_no_such_process(self) -> None:
        gone = subprocess.Popen(["true"])
        gone.wait()
        with pytest.raises(TargetError, match=f"there is no process {gone.pid}"):
            Observer(gone.pid)

    def test_a_zombie(self) -> None:
        with subprocess.Popen(["true"]) as zombie:
            os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
            with pytest.raises(TargetError, match="zombie"):
                Observer(zombie.pid)

    def test_not_python(self) -> None:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as cat:
            assert cat.stdin is not None
            assert cat.stdout is not None
            cat.stdin.write(b"x")
            cat.stdin.flush()
            assert cat.stdout.read(1) == b"x"
            with pytest.raises(TargetError, match=r"\(cat\) is not a CPython"):
                Observer(cat.pid)
            cat.stdin.close()

    def test_without_a_gil(self, any_interpreter: Interpreter) -> None:
        if not any_interpreter.free_threaded:
            pytest.skip("this one has a GIL")
        with target(any_interpreter.path, "convoy") as (_, pid), pytest.raises(TargetError, match="free-threaded"):
            Observer(pid)

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    def test_another_users(self) -> None:
        code = f"""
import os, sys
sys.path[:0] = {sys.path!r}
from giltrace.process.interpreter import find_interpreter
from giltrace.errors import TargetError
os.setgid(65534), os.setgroups([]), os.setuid(65534)
try:
    find_interpreter({os.getpid()})
except TargetError as error:
    print(error.message, error.remedy, sep="|")
"""
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        message, _, remedy = told.partition("|")
        assert "another user's (uid 0)" in message
        assert "sudo" in remedy


def may_read_siblings() -> bool:
    """Whether one child of this process may read another: Yama, at its usual setting, lets ancestors only."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    return os.geteuid() == 0 or not scope.exists() or int(scope.read_text()) == 0


@pytest.mark.skipif(not may_read_siblings(), reason="kernel.yama.ptrace_scope forbids reading any but descendants")
class TestCommand:
    def test_leaves_a_recording_and_a_trace(self, tmp_path: Path) -> None:
        with target(sys.executable, "convoy") as (_, pid):
            words = [*GILTRACE, "attach", "--observe", str(pid), "-d", "700ms", "-o", "seen"]
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 0, done.stderr
        assert "sampled at" in done.stderr
        assert (tmp_path / "seen.pftrace").stat().st_size > 0
        assert Meta.read(tmp_path / "seen.giltrace").state == "complete"
        timeline = load(tmp_path / "seen.giltrace")
        assert timeline.sampling is not None
        assert timeline.violations == ()
        blame = analyse(timeline).processes[0].blame
        assert {(row.victim.line, row.culprit.line) for row in blame} == {(0, 0)}  # threads are named, lines not

    def test_can_be_read_while_it_runs_and_ends_at_ctrl_c(self, tmp_path: Path) -> None:
        with target(sys.executable, "convoy") as (process, pid):
            words = [*GILTRACE, "attach", "--observe", str(pid), "-o", "seen"]
            with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as giltrace:
                file = tmp_path / "seen.giltrace" / f"gil-{pid}-0.bin"
                counts = [0]
                while len(counts) < 4:
                    assert giltrace.poll() is None
                    if file.exists():
                        read, _ = read_processes(file.parent)
                        now = sum(len(one.events) for one in read)
                        counts += [now] if now > counts[-1] else []
                giltrace.send_signal(signal.SIGINT)
                _, told = giltrace.communicate(timeout=90)
            assert giltrace.returncode == 0, told
            assert process.poll() is None
        assert Meta.read(tmp_path / "seen.giltrace").state == "complete"

    def test_a_refusal_leaves_nothing_behind(self, tmp_path: Path) -> None:
        gone = subprocess.Popen(["true"])
        gone.wait()
        words = [*GILTRACE, "attach", "--observe", str(gone.pid)]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=90, check=False)
        assert done.returncode == 2
        assert f"there is no process {gone.pid}" in done.stderr
        assert list(tmp_path.iterdir()) == []


def test_who_never_lets_go_is_seen_to_hold_throughout(tmp_path: Path) -> None:
    code = "import sys\nprint('ready', flush=True)\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as alone:
        try:
            assert alone.stdout is not None
            alone.stdout.readline()
            observer = Observer(alone.pid)
            collector = ObserveCollector(observer)
            collector.start(Session(tmp_path, alone.pid, None))
            while observer.stats().samples < 1000:
                collector.poll()
            collector.stop()
        finally:
            alone.kill()
    found = process_of(tmp_path)
    (hold,) = found.holds
    assert found.sampling is not None
    assert hold["end"] == found.sampling.known_until
    assert hold["end"] - hold["start"] >= 0.9 * 999 * found.sampling.interval_ns

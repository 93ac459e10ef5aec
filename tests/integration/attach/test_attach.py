"""`giltrace attach` on every interpreter: exact while attached, and as if it had never been afterwards."""

from __future__ import annotations

import itertools
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from giltrace.analysis.finding_results import Hog
from giltrace.analysis.findings.hogs import find_hogs
from giltrace.analysis.findings.verdict import judge
from giltrace.collectors.pyspy import PySpyCollector
from giltrace.collectors.sched import SchedCollector
from giltrace.errors import TargetError
from giltrace.launch.attach import inject
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.session import attach
from giltrace.launch.attach.target import Target
from giltrace.recording import layout
from giltrace.recording.meta import Meta
from giltrace.timeline.load import load
from giltrace.timeline.model import Timeline
from tests import uprobes
from tests.attaching import ROOT, Running, die_on_the_way, is_at_work
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, of_kind, read, waiting

THREADS = ("MainThread", "worker-0", "worker-1", "worker-2")


def record(pid: int, folder: Path, seconds: float = 0.1) -> Timeline:
    outcome = attach(pid, folder, [SchedCollector()], depth=128, seconds=seconds)
    assert outcome.said == []
    timeline = load(folder)
    assert not timeline.violations
    assert all(process.lost == 0 for process in timeline.processes)
    return timeline


def command(pid: int, folder: Path, *options: str) -> subprocess.Popen[str]:
    """Start `giltrace attach` and wait until the tracer is at work."""
    words = [sys.executable, "-m", "giltrace", "attach", str(pid), "--light", "-o", str(folder), *options]
    started = subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    while not is_at_work(folder):
        assert started.poll() is None, started.communicate()[1]
        time.sleep(0.005)
    return started


def seen(folder: Path) -> set[str]:
    """The names of the threads that have used the GIL so far."""
    given = Meta.read(folder).thread_names
    return {given.get(str(thread.tid), thread.name) for process in read(folder) for thread in process.threads}


def interrupt(started: subprocess.Popen[str]) -> str:
    started.send_signal(signal.SIGINT)
    _, said = started.communicate(timeout=60)
    assert started.returncode == 0, said
    return said


def test_what_is_under_way_at_the_end_lasts_no_longer_than_the_tracer_was_there(tmp_path: Path) -> None:
    """A profiler that is stopped after the tracer goes on to see the thread that had the GIL."""
    with Running(sys.executable, "seized") as target:
        attach(target.pid, tmp_path / "out", [SchedCollector(), PySpyCollector()], depth=128, seconds=0.5)
    (process,) = load(tmp_path / "out").processes
    assert process.spans
    (hold,), (recorded,) = process.holds, read(tmp_path / "out")
    assert hold["end"] == process.end == max(Meta.read(tmp_path / "out").end_ns, int(recorded.events["time"][-1]))
    assert max(int(one.spans["end"].max()) for one in process.spans) <= process.end


@pytest.mark.on_some
def test_attaches_and_leaves_again_and_again(interpreter: Interpreter, tmp_path: Path) -> None:
    with Running(interpreter.path, "workers") as target:
        for number in range(2):
            folder = tmp_path / f"{number}.giltrace"
            started = command(target.pid, folder)
            while not all(name in seen(folder) for name in THREADS):
                assert started.poll() is None
                time.sleep(0.05)
            interrupt(started)
            timeline = load(folder)
            assert not timeline.violations
            (process,) = timeline.processes
            names = [thread.name for thread in process.threads]
            assert set(THREADS) <= set(names)
            assert len(names) == len(set(names))
            # The thread that giltrace itself had there is none of the program's.
            assert {thread.tid for thread in process.threads} <= set(Process(target.pid).tids())
            assert process.stacks is not None
            assert target.hooks() == 0
        assert target.answers()


@pytest.mark.needs("perf", "uprobes")
def test_counts_equal_those_of_kernel_uprobes(interpreter: Interpreter, tmp_path: Path) -> None:
    with Running(interpreter.path, "idle") as target, uprobes.placed(interpreter) as probes:
        folder = tmp_path / "counted.giltrace"
        started = command(target.pid, folder)
        assert target.waits()
        with probes.counting(target.pid) as counts:
            assert target.answers()
            assert target.waits()
        interrupt(started)
        (process,) = read(folder)
        acquires, releases = (of_kind(process.events, kind) for kind in (layout.Kind.ACQUIRE, layout.Kind.RELEASE))
        assert (len(acquires), len(releases)) == (counts["take_gil"], counts["drop_gil"])
        assert len(acquires) > 900
        assert process.lost == 0


@pytest.mark.on_some
def test_threads_that_all_sleep_are_left_through_one_of_them(interpreter: Interpreter, tmp_path: Path) -> None:
    with Running(interpreter.path, "idle") as target:
        started = command(target.pid, tmp_path / "asleep.giltrace")
        assert target.hooks() > 3
        interrupt(started)
        assert target.hooks() == 0
        assert target.answers()
        record(target.pid, tmp_path / "again.giltrace")


SPINNERS = """
import threading
def loop():
    number = 0
    while True:
        number += 1
threading.Thread(target=loop, daemon=True).start()
print("ready", flush=True)
loop()
"""


@pytest.mark.on_some
def test_a_loop_in_python_is_never_a_hog(interpreter: Interpreter, tmp_path: Path) -> None:
    with waiting(interpreter.path, "-c", SPINNERS) as process:
        handed_over, hogs = 0, list[Hog]()
        for number in itertools.count():
            timeline = record(process.pid, tmp_path / f"{number}.giltrace")
            (found,) = timeline.processes
            hogs += find_hogs(found)
            assert judge(found).kind != "hog"
            # On a busy machine it may be over before both threads have had a core.
            handed_over += len(found.holds) > 1
            if handed_over == 12:
                break
    # A virtual machine's core that its host takes away for a moment looks as if its thread ran on: once, not each time.
    assert len(hogs) <= 1, hogs


@pytest.mark.on_some
@pytest.mark.parametrize("kind", ["spin", "malloc", "many", "ids"])
def test_busy_programs(interpreter: Interpreter, kind: str, tmp_path: Path) -> None:
    with Running(interpreter.path, kind) as target:
        for number in range(3):
            record(target.pid, tmp_path / f"{number}.giltrace", 0.05)
            assert target.hooks() == 0
        assert kind == "spin" or target.answers()
        assert target.process.poll() is None


@pytest.fixture(scope="module")
def churn_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("churn") / "churn.so"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", out, TARGETS / "churn.c"], check=True, timeout=60)
    return out


@pytest.mark.on_some
@pytest.mark.needs("cc")
def test_threads_inside_malloc_are_left_alone(interpreter: Interpreter, churn_library: Path, tmp_path: Path) -> None:
    with Running(interpreter.path, "native", churn_library) as target:
        for number in range(3):
            record(target.pid, tmp_path / f"{number}.giltrace", 0.02)
        assert target.answers()


@pytest.mark.needs("cc")
def test_says_so_if_no_safe_moment_comes(churn_library: Path, tmp_path: Path) -> None:
    with Running(sys.executable, "native-1", churn_library) as target:
        with pytest.raises(TargetError, match="safe moment") as refused:
            record(target.pid, tmp_path / "never.giltrace")
        assert "--observe" in refused.value.remedy
        assert target.process.poll() is None
        assert not (tmp_path / "never.giltrace").exists()


def test_interrupt_ends_the_recording_and_not_the_program(tmp_path: Path) -> None:
    with Running(sys.executable, "workers") as target:
        said = interrupt(command(target.pid, tmp_path / "cut.giltrace"))
        assert "0 lost events, 0 broken invariants" in " ".join(said.split())
        assert (tmp_path / "cut.pftrace").stat().st_size > 0
        assert target.answers()


def test_the_end_of_the_program_ends_the_recording(tmp_path: Path) -> None:
    with Running(sys.executable, "workers") as target:
        started = command(target.pid, tmp_path / "ended.giltrace")
        target.process.kill()
        _, said = started.communicate(timeout=60)
        assert started.returncode == 0, said
        assert not load(tmp_path / "ended.giltrace").violations


@pytest.mark.parametrize("kind", ["idle", "workers"])
def test_survives_the_death_of_giltrace_at_any_step(kind: str, tmp_path: Path) -> None:
    with Running(sys.executable, kind) as target:
        died = die_on_the_way(target.pid, "attach", 7, tmp_path / "dead.giltrace")
        assert died.returncode == 0, died.stderr
        assert int(died.stdout) > 3
        assert target.answers()
        record(target.pid, tmp_path / "alive.giltrace")


def test_a_killed_recorder_leaves_a_recording_and_a_program_to_attach_to(tmp_path: Path) -> None:
    with Running(sys.executable, "workers") as target:
        started = command(target.pid, tmp_path / "killed.giltrace")
        started.kill()
        started.communicate(timeout=60)
        assert target.answers()
        record(target.pid, tmp_path / "next.giltrace")
        assert target.hooks() == 0
        assert not load(tmp_path / "killed.giltrace").violations


@pytest.mark.parametrize("again", ["killed", "next"])
def test_replaces_a_trace_that_a_killed_recorder_only_just_began(
    again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread goes on in the program without it: what it begins may not be there yet at the first look."""
    looks: list[bool] = []

    def late(target: Target, folder: str) -> bool:
        looks.append(not looks or inject_end_orphan(target, folder))
        return looks[-1]

    inject_end_orphan = inject.end_orphan
    with Running(sys.executable, "workers") as target:
        started = command(target.pid, tmp_path / "killed.giltrace")
        started.kill()
        started.communicate(timeout=60)
        monkeypatch.setattr(inject, "end_orphan", late)
        path = tmp_path / f"{again}.giltrace"
        attach(target.pid, path, [], depth=128, seconds=0.1, force=True)
        assert looks == [True, True]
        assert target.answers()
        assert not load(path).violations


def test_full_disk_costs_events_only(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 4096, 2 * 4096))

    with Running(sys.executable, "workers", before=limit) as target:
        attach(target.pid, tmp_path / "full.giltrace", [], depth=128, seconds=0.1)
        assert load(tmp_path / "full.giltrace").lost > 0
        assert target.answers()


def test_no_space_at_all_is_said(tmp_path: Path) -> None:
    with Running(sys.executable, "workers", before=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (9, 9))) as target:
        with pytest.raises(TargetError, match="could not start"):
            record(target.pid, tmp_path / "full.giltrace")
        assert target.hooks() == 0
        assert target.answers()


def asleep(target: Running) -> None:
    """Wait until its main thread sleeps for good: each time that it is looked at, in the same system call."""
    process, seen = Process(target.pid), list[object]()
    while len(seen) < 20 or len(set(map(repr, seen[-20:]))) > 1 or seen[-1] in ("running", "other"):
        seen.append(process.blocked(target.pid))
        time.sleep(0.005)


@pytest.mark.on_some
def test_what_began_before_and_never_ends_is_known(interpreter: Interpreter, tmp_path: Path) -> None:
    with Running(interpreter.path, "spin") as target:
        (process,) = record(target.pid, tmp_path / "spin.giltrace", 0.2).processes
        (hold,) = process.holds
        assert process.threads[hold["thread"]].tid == target.pid
        assert (hold["start"], hold["end"]) == (process.start, process.end)
        assert judge(process).kind == "single-threaded"
    with Running(interpreter.path, "seized") as target:
        asleep(target)
        (process,) = record(target.pid, tmp_path / "seized.giltrace", 0.5).processes
        (hold,) = process.holds
        assert process.threads[hold["thread"]].tid == target.pid
        (wait,) = process.waits
        assert process.threads[wait["thread"]].name == "worker-0"
        verdict = judge(process)
        assert (verdict.kind, "'MainThread'" in verdict.summary) == ("hog", True)
    with Running(interpreter.path, "deadlock") as target:
        asleep(target)
        (process,) = record(target.pid, tmp_path / "deadlock.giltrace", 0.2).processes
        assert len(process.holds) == 0
        verdict = judge(process)
        assert (verdict.kind, "'MainThread' at <module> (attached.py:" in verdict.summary) == ("deadlock", True)
        assert "whether it has taken that lock itself" in verdict.advice


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make namespaces")
def test_container_with_its_own_files_and_process_ids(tmp_path: Path) -> None:
    # What we see of this folder and of /dev/shm, it does not.
    mounts = f"mount -t tmpfs none {tmp_path} && mount -t tmpfs none /dev/shm && exec"
    inside = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", f'{mounts} "$@"', "sh"]
    words = [*inside, sys.executable, "-c", TARGET_INSIDE]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, text=True) as outer:
        assert outer.stdout is not None
        assert outer.stdout.readline() == "ready 1\n"
        (pid,) = (int(p) for p in Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split())
        # It shares /tmp with whoever else traces on this machine.
        before = staged(pid)
        timeline = record(pid, tmp_path / "inside.giltrace")
        (process,) = timeline.processes
        assert process.pid == pid
        assert len(process.holds) > 3
        assert len(process.runs) > 0
        assert "sleeper" in [thread.name for thread in process.threads]
        assert staged(pid) - before == set()
        outer.communicate("end\n", timeout=60)


def staged(pid: int) -> set[Path]:
    return set(Path("/proc", str(pid), "root", "tmp").glob("giltrace-*/recording"))


TARGET_INSIDE = """
import os, sys, threading, time
def sleep():
    while True: time.sleep(0.001)
threading.Thread(target=sleep, name="sleeper", daemon=True).start()
print("ready", os.getpid(), flush=True)
sys.stdin.readline()
"""

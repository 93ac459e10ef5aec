"""Attaching to a program that hangs already: which lock each thread sleeps in, at which line, and who has it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from giltrace.analysis.findings.verdict import judge
from giltrace.launch.attach.process import Process as Live
from giltrace.launch.attach.session import attach
from giltrace.launch.attach.sleepers import Sleepers, asleep_now
from giltrace.launch.observe import observe
from giltrace.process.lock_memory import lock_of
from giltrace.process.memory import Memory
from giltrace.recording.meta import Meta
from giltrace.timeline.load import load
from giltrace.timeline.model import BlockEnd, Process
from tests.attaching import ROOT, Running
from tests.interpreters import Interpreter
from tests.stuck import Stuck, has_lines, line, stood

IDLE = ROOT / "tests" / "targets" / "awaiting.py"
GILTRACE = (sys.executable, "-m", "giltrace")


def check(process: Process, interpreter: Interpreter, kind: str) -> None:
    """Whether the recording says who waits for whom, or what of that can be known."""
    assert process.violations == ()
    names = {"payer", "booker"} if has_lines(interpreter) else set()
    stuck = process.blocks[process.blocks["ended"] == BlockEnd.OPEN]
    assert names <= {process.threads[thread].name for thread in stuck["thread"].tolist()}
    assert (stuck["start"] == process.start).all()
    assert (stuck["end"] == process.end).all()
    verdict = judge(process)
    if kind == "Lock" and not has_lines(interpreter):
        assert verdict.kind != "deadlock"  # for all that is known, they wait for work
        return
    assert verdict.kind == "deadlock"
    for name, at in zip(("payer", "booker"), stood(), strict=True):
        assert (f"{name!r} at {at}" in verdict.summary) == has_lines(interpreter)
    certain = kind == "RLock"
    assert verdict.summary.startswith("Deadlock: from before" if certain else "Blocked to the end, from before")
    assert ("They may wait for each other" in verdict.advice) == (not certain)
    if certain and has_lines(interpreter):
        assert f"'payer' at {stood()[0]} in a lock that 'booker' had" in verdict.summary


@pytest.mark.on_some
@pytest.mark.parametrize("kind", ["RLock", "Lock"])
def test_who_waits_for_whom_is_known(any_interpreter: Interpreter, kind: str, tmp_path: Path) -> None:
    with Stuck(any_interpreter.path, kind) as target:
        target.hangs()
        assert attach(target.pid, tmp_path / "x", [], depth=128, seconds=0.2).said == []
        (process,) = load(tmp_path / "x").processes
        check(process, any_interpreter, kind)
        assert target.hooks() == 0
        assert len(asleep_now(target.pid)) >= 2


@pytest.mark.parametrize("kind", ["RLock", "Lock"])
def test_from_outside(any_interpreter: Interpreter, kind: str, tmp_path: Path) -> None:
    if any_interpreter.free_threaded:
        pytest.skip("has no GIL to be observed")
    with Stuck(any_interpreter.path, kind) as target:
        target.hangs()
        observe(target.pid, tmp_path / "x", [], seconds=0.2)
        (process,) = load(tmp_path / "x").processes
        check(process, any_interpreter, kind)


@pytest.mark.on_some
def test_threads_that_wait_for_work_are_no_deadlock(any_interpreter: Interpreter, tmp_path: Path) -> None:
    with Running(any_interpreter.path, "", target=IDLE) as target:
        while len(asleep_now(target.pid)) < int(target.line()):
            pass
        command = [*GILTRACE, "top", "--json", "-d", "1200ms", str(target.pid)]
        told = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
        assert told["deadlocks"] == []
        attach(target.pid, tmp_path / "x", [], depth=128, seconds=0.2)
    (process,) = load(tmp_path / "x").processes
    assert (len(process.blocks) > 5) == has_lines(any_interpreter)
    assert judge(process).kind in ("idle", "free-threaded")


@pytest.mark.on_some
@pytest.mark.parametrize("observed", [False, True], ids=["exact", "observed"])
def test_top(any_interpreter: Interpreter, observed: bool) -> None:
    if observed and any_interpreter.free_threaded:
        pytest.skip("has no GIL to be observed")
    with Stuck(any_interpreter.path, "RLock") as target:
        target.hangs()
        how = ["--observe"] if observed else []
        command = [*GILTRACE, "top", "--json", "-d", "200ms", *how, str(target.pid)]
        told = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
        (deadlock,) = told["deadlocks"]
        assert (deadlock["pid"], deadlock["certain"], deadlock["for_ns"]) == (target.pid, True, None)
        one, other = deadlock["threads"]
        assert (one["waits_for"], other["waits_for"]) == (other["tid"], one["tid"])
        assert one["lock"] != other["lock"]
        if has_lines(any_interpreter):
            known = {row["name"]: row["at"] for row in (one, other)}
            assert known == dict(zip(("payer", "booker"), stood(), strict=True))


def test_one_thread_with_its_own_lock(any_interpreter: Interpreter, tmp_path: Path) -> None:
    with Stuck(any_interpreter.path, "Lock", "alone") as target:
        target.hangs_alone()
        attach(target.pid, tmp_path / "x", [], depth=128, seconds=0.2)
    (process,) = load(tmp_path / "x").processes
    verdict = judge(process)
    assert (verdict.kind == "deadlock") == has_lines(any_interpreter)
    if has_lines(any_interpreter):
        assert "taken that lock itself" in verdict.advice
        assert f"<module> (stuck.py:{line('alone waits')})" in verdict.summary


@pytest.mark.on_some
def test_who_is_woken_up_meanwhile_is_no_more_blocked(any_interpreter: Interpreter, tmp_path: Path) -> None:
    with Stuck(any_interpreter.path, "Lock") as target:
        target.hangs()

        def go_on(seconds: float, events: int) -> None:
            if not told:
                told.append(seconds)
                target.say("enough")

        told: list[float] = []
        attach(target.pid, tmp_path / "x", [], depth=128, seconds=1.5, progress=go_on)
        assert told
    (process,) = load(tmp_path / "x").processes
    assert process.violations == ()
    assert judge(process).kind != "deadlock"
    if not any_interpreter.free_threaded:
        assert (process.blocks["ended"] != BlockEnd.OPEN).sum() >= 2


def test_what_looks_like_no_lock_is_not_believed() -> None:
    with Stuck(sys.executable, "RLock") as target:
        target.hangs()
        sleeper = next(one for one in asleep_now(target.pid) if one.owner)
        memory = Memory(target.pid)
        stack = Live(target.pid).blocked(sleeper.tid)
        assert not isinstance(stack, str)
        known = lock_of(memory, stack.arguments[0], stack.rsp)
        assert known is not None
        assert known.type == "_thread.RLock"
        # Neither a word beside it, nor another stack, nor what is on the stack without being such an entry.
        assert lock_of(memory, stack.arguments[0] + 8, stack.rsp) is None
        assert lock_of(memory, stack.arguments[0], 0x1000) is None
        assert lock_of(memory, stack.rsp + 64, stack.rsp) is None
        memory.close()


def test_who_sleeps_on_is_told_with_the_time_of_the_first_look() -> None:
    with Stuck(sys.executable, "RLock") as target:
        target.hangs()
        sleepers = Sleepers(Live(target.pid))
        first = {one.tid: one for one in sleepers.look()}
        again = {one.tid: one for one in sleepers.look()}
        assert first.keys() == again.keys()
        assert all(again[tid].seen_ns == first[tid].seen_ns == sleepers.first_ns for tid in first)
        assert all(again[tid].last_ns > first[tid].last_ns for tid in first)


def test_a_recording_that_was_killed_has_them(tmp_path: Path) -> None:
    with Stuck(sys.executable, "RLock") as target:
        target.hangs()
        command = [*GILTRACE, "attach", "--light", "-o", str(tmp_path / "x"), str(target.pid)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as recorder:
            folder = tmp_path / "x.giltrace"
            while not (folder / "meta.json").exists() or not Meta.read(folder).asleep:
                assert recorder.poll() is None
            recorder.kill()
        (process,) = load(folder).processes
        assert judge(process).summary.startswith("Deadlock: from before the record begins")


def test_times_that_cannot_be_are_left_out(tmp_path: Path) -> None:
    with Stuck(sys.executable, "RLock") as target:
        target.hangs()
        attach(target.pid, tmp_path / "x", [], depth=128, seconds=0.1)
    meta = Meta.read(tmp_path / "x")
    whole = load(tmp_path / "x")
    meta.asleep = [replace(one, last_ns=1 << 60) if one.owner else one for one in meta.asleep]
    meta.write(tmp_path / "x")
    (process,) = load(tmp_path / "x").processes
    assert process.end <= whole.end
    assert len(process.blocks) == 0

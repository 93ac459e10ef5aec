"""Attaching to a program whose threads wait for each other in a lock, whatever its build."""

from __future__ import annotations

from pathlib import Path

from giltrace.analysis.findings.verdict import judge
from giltrace.collectors.sched import SchedCollector
from giltrace.launch.attach.session import attach
from giltrace.timeline.load import load
from tests.attaching import ROOT, Running
from tests.interpreters import Interpreter

TARGET = ROOT / "tests" / "targets" / "one_lock.py"


def test_who_sleeps_in_a_lock_is_on_record(any_interpreter: Interpreter, tmp_path: Path) -> None:
    with Running(any_interpreter.path, "", target=TARGET) as target:
        for folder in (tmp_path / "one", tmp_path / "two"):
            assert attach(target.pid, folder, [SchedCollector()], depth=128, seconds=0.3).said == []
            assert target.hooks() == 0
            (process,) = load(folder).processes
            assert process.violations == ()
            assert process.lost == 0
            assert len(process.blocks) > 5
            assert (process.blocks["waker"] >= 0).sum() > 3
            verdict = judge(process)
            assert verdict.kind == "lock-bound"
            assert "work (one_lock.py:" in verdict.summary
        assert target.answers()

"""Threads that wait while another one forks."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.ranked import find_findings
from giltrace.analysis.findings.verdict import judge
from tests.unit.analysis_stacks import Frame
from tests.unit.block_events import Scene, library, own
from tests.unit.gil_events import MS, US

LIB = "/usr/lib/python3.12/"


def judged(forker: list[Frame], fork: int = 20 * MS) -> tuple[Verdict, str]:
    """One thread keeps the GIL for so long in one of its stacks, and 2 ms in another, again and again; one waits.

    Returns the verdict, and the advice on contention.
    """
    scene, at = Scene(2, {"forks": forker, "works": [own("work")], "ticks": [own("tick")]}), 0
    for _ in range(20):
        for length, stack in ((fork, "forks"), (2 * MS, "works")):
            scene.script.acquire(at, 0).request(at + 10 * US, 1).release(at + length, 0)
            scene.of_hold[0, at] = scene._stack(stack)
            scene.run(at, at + length, 0)
            at += length + 5 * US
            scene.hold(at, at + 20 * US, 1, "ticks").run(at, at + 20 * US, 1)
            at += 40 * US
    process = scene.process(at)
    figures = Costed(process, time.time_ns())
    advice = next(one.advice for one in find_findings(process, figures) if one.cause == "contention")
    return judge(process, figures), advice


SUBPROCESS = [
    library("Popen._execute_child", f"{LIB}subprocess.py"),
    library("run", f"{LIB}subprocess.py"),
    own("main"),
]
POOL = [library("Popen._launch", f"{LIB}multiprocessing/popen_fork.py"), own("main")]


@pytest.mark.parametrize("stack", [SUBPROCESS, POOL], ids=["subprocess", "multiprocessing"])
def test_who_waits_for_forks_is_told_to_fork_earlier(stack: list[Frame]) -> None:
    verdict, advice = judged(stack)
    assert verdict.kind == "cpu-bound-contention"
    assert re.search(r"90\.9% of that passed while '[^']+' started processes at main \(app\.py:1\)", verdict.summary)
    assert verdict.advice.startswith("Start fewer of them, and those while there is little memory: ")
    assert "use processes" not in verdict.advice
    assert verdict.evidence["forked_ns"] == pytest.approx(20 * (20 * MS - 10 * US), abs=MS)
    assert advice.startswith("Start fewer of them")


@pytest.mark.parametrize(
    ("line", "forks"),
    [
        ("pid = os.fork()", True),
        ("    pid, fd = os.forkpty()", True),
        ("if fork() == 0:", True),
        ("forks = count_forks()", False),
        ("fork = pitch(1)", False),
        ("branch.fork(name)", False),
    ],
)
def test_a_fork_of_the_programs_own_is_known_by_its_source(line: str, forks: bool, tmp_path: Path) -> None:
    source = tmp_path / "app.py"
    source.write_text(f"{line}\n")
    verdict, _ = judged([("start", str(source), 1)])
    assert ("started processes at start (app.py:1)" in verdict.summary) == forks
    assert ("forked_ns" in verdict.evidence) == forks


def test_forks_that_cost_little_change_nothing() -> None:
    verdict, advice = judged(SUBPROCESS, MS)
    assert "forked_ns" not in verdict.evidence
    assert "Start fewer" not in verdict.advice + advice


def test_a_function_of_that_name_elsewhere_is_no_fork() -> None:
    verdict, _ = judged([("_launch", "/srv/popen_fork.py", 3), own("main")])
    assert "forked_ns" not in verdict.evidence

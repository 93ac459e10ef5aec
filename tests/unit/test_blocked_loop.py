"""An event loop whose thread is blocked by what it runs, and one that waits in its selector."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.findings.verdict import judge
from giltrace.recording.events import SPAN, Spans
from giltrace.timeline.model import BlockEnd, Process
from tests.unit.analysis_stacks import Frame
from tests.unit.block_events import Scene, own
from tests.unit.gil_events import MS, PID, US

LIB = "/usr/lib/python3.12"
#: What runs callbacks, and the innermost frames of a selector, by loop.
RUNS: dict[str, list[Frame]] = {
    "asyncio": [("Handle._run", f"{LIB}/asyncio/events.py", 80), ("_run_once", f"{LIB}/asyncio/base_events.py", 1900)],
    "uvloop": [("run", f"{LIB}/asyncio/runners.py", 190)],
    "trio": [("unrolled_run", "/venv/lib/trio/_core/_run.py", 2400)],
    "gevent": [],
    "Tornado": [
        ("Handle._run", f"{LIB}/asyncio/events.py", 80),
        ("_run_once", f"{LIB}/asyncio/base_events.py", 1900),
        ("start", "/venv/lib/tornado/platform/asyncio.py", 200),
    ],
}
SELECTS: dict[str, list[Frame]] = {
    "asyncio": [("select", f"{LIB}/selectors.py", 450), RUNS["asyncio"][1]],
    "uvloop": [RUNS["uvloop"][0]],
    "trio": [("get_events", "/venv/lib/trio/_core/_io_epoll.py", 5), *RUNS["trio"]],
    "gevent": [("Hub.run", "/venv/lib/gevent/hub.py", 647)],
    "Tornado": [("select", f"{LIB}/selectors.py", 450), *RUNS["Tornado"][1:]],
}
INSTEAD = {"trio": "trio.to_thread.run_sync", "gevent": "threadpool.apply"}


def turns(
    loop: str, blocked: int, waiting: int, *, ran: int = MS, lock: bool = False, by: Sequence[Frame] = ()
) -> Process:
    """30 times the main thread runs a callback that is blocked, and waits in the loop's selector; before all, in none
    of both.
    """
    stacks = {"handler": [own("handler"), *by, *RUNS[loop]], "select": SELECTS[loop]}
    made, at = Scene(1, stacks).hold(0, MS, 0, "connect"), 400 * MS
    for _ in range(30):
        made.hold(at, at + ran, 0, "select")
        made.hold(at + ran + waiting, at + 2 * ran + waiting, 0, "handler")
        at += 2 * ran + waiting
        if lock:
            made.block(at, at + blocked, 0, at="handler", ended=BlockEnd.TIMED_OUT, timed=True)
        at += blocked
    return made.hold(at, at + MS, 0, "select").process(at + waiting)


@pytest.mark.parametrize("loop", RUNS)
@pytest.mark.parametrize("sched", [True, False])
def test_a_loop_that_is_blocked_is_not_idle(loop: str, sched: bool) -> None:
    made = turns(loop, 80 * MS, 60 * MS)
    verdict = judge(made if sched else replace(made, has_sched=False))
    assert verdict.kind == "io-bound-handoff"
    assert f"ran in its loop ({loop}) blocked it for 2.40 s" in verdict.summary
    assert "handler (app.py:1)" in verdict.summary
    assert "30 times" in verdict.summary
    assert INSTEAD.get(loop, "asyncio.to_thread") in verdict.advice
    assert "hardly had anything to run" not in verdict.advice


def test_a_cell_does_not_block_the_loop_of_its_notebook() -> None:
    cell = ("Kernel.execute_request", "/venv/lib/ipykernel/kernelbase.py", 770)
    verdict = judge(turns("asyncio", 80 * MS, 60 * MS, by=[cell]))
    assert "blocked" not in verdict.summary + verdict.advice


@pytest.mark.parametrize("loop", RUNS)
def test_a_loop_that_waits_in_its_selector_is_idle(loop: str) -> None:
    """What it was blocked in before it began is no matter."""
    verdict = judge(turns(loop, 20 * US, 140 * MS))
    assert verdict.kind == "idle"
    assert "blocked" not in verdict.summary + verdict.advice


def test_a_loop_that_is_seldom_blocked_is_idle_and_told_of_it() -> None:
    verdict = judge(turns("asyncio", 120 * MS, 2000 * MS))
    assert verdict.kind == "idle"
    assert "blocked for 3.60 s in all, up to 120 ms at once, most at handler (app.py:1)" in verdict.advice


def test_a_loop_that_works_more_than_it_is_blocked_is_told_of_it_beside() -> None:
    blocked, working = (judge(turns("asyncio", 80 * MS, 60 * MS, ran=ms * MS)) for ms in (20, 60))
    assert blocked.summary.startswith("Blocked event loop")
    assert working.kind == "single-threaded"
    assert "blocked for 2.40 s in all" in working.advice


def test_a_lock_that_blocks_a_loop_is_told_as_such() -> None:
    verdict = judge(turns("asyncio", 80 * MS, 60 * MS, lock=True))
    assert verdict.kind == "lock-bound"
    assert "The event loop (asyncio) of thread 'MainThread' was blocked for 2.40 s in all" in verdict.advice


@pytest.mark.parametrize(("inner", "hung"), [([own("fetch"), *RUNS["asyncio"]], True), (SELECTS["asyncio"], False)])
def test_a_loop_that_is_blocked_all_the_while_is_told_by_a_sampler(inner: list[Frame], hung: bool) -> None:
    names = tuple(f"{function} ({file}:{line})" for function, file, line in inner[::-1])
    rows = np.zeros(len(names), SPAN)
    rows["tid"], rows["end"], rows["depth"] = PID, 3000 * MS, np.arange(len(names))
    rows["name"] = np.arange(len(names))
    made = replace(Scene(1).process(3000 * MS), unused=True, stacks=None)
    made = replace(made, spans=(Spans("py-spy", PID, True, names, rows),))
    verdict = judge(made)
    assert verdict.summary.startswith("Blocked event loop") is hung
    assert ("fetch (app.py:1)" in verdict.summary) is hung
    assert (verdict.kind == "idle") is not hung


@pytest.mark.parametrize(
    "frames", [[("select", "/srv/selecting.py", 3), RUNS["asyncio"][1]], [RUNS["trio"][0]], [("run", "/srv/app.py", 9)]]
)
def test_a_loop_by_itself_is_not_blocked_by_what_it_runs(frames: list[Frame]) -> None:
    """Its selector may be of any make."""
    made = Scene(1, {"select": frames}).hold(0, 10 * MS, 0, "select").hold(4990 * MS, 4991 * MS, 0, "select")
    assert judge(made.process(5000 * MS)).kind == "idle"

"""Jobs so small that handing them over takes more of the GIL than they do."""

from __future__ import annotations

import numpy as np
import pytest

from giltrace.analysis.finding_results import Finding, Verdict
from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.ranked import find_findings
from giltrace.analysis.findings.verdict import judge
from giltrace.analysis.measure.sites import main_place, own_line
from giltrace.analysis.results import LineBlame
from giltrace.analysis.site import Site
from giltrace.reports.blame import _leaf
from giltrace.timeline.collections import FILE, FUNCTION
from tests.unit.block_events import Scene, library, own
from tests.unit.gil_events import MS, US
from tests.unit.lock_scenes import TURN, taking_turns

LIB = "/usr/lib/python3.12/"
POOL, QUEUE, THREAD_POOL = f"{LIB}concurrent/futures/thread.py", f"{LIB}queue.py", f"{LIB}multiprocessing/pool.py"
LOOP = [library("_worker", POOL), library("Thread.run")]
STACKS = {
    "submit": [library("Condition.__init__"), library("ThreadPoolExecutor.submit", POOL), own("main")],
    "garbage": [(FUNCTION, FILE, 0), library("Future.__init__", POOL), own("main")],
    "job": [own("job"), library("_WorkItem.run", POOL), *LOOP],
    "in C": [library("_WorkItem.run", POOL), *LOOP],
    "put": [library("Condition.notify"), library("Queue.put", QUEUE), own("main")],
    "next": [library("IMapIterator.next", THREAD_POOL), own("main")],
    "lock": [library("Condition.__enter__"), own("main")],
    "other": [library("put", f"{LIB}site-packages/kombu/queue.py"), own("main")],
}


def judged(first: str, second: str) -> tuple[Verdict, Finding]:
    """Two threads have the GIL in turns of 1 ms, each in one of these stacks, while the other one waits."""
    scene, at = Scene(3, STACKS).hold(0, 10 * US, 0), 10 * US
    for number in range(400):
        mine = 1 + number % 2
        scene.script.acquire(at, mine).request(at + 10 * US, 3 - mine).release(at + MS, mine)
        scene.of_hold[mine, at] = scene._stack((first, second)[number % 2])
        scene.run(at, at + MS, mine)
        at += MS + 5 * US
    process = scene.process(at)
    figures = Costed(process)
    return judge(process, figures), next(one for one in find_findings(process, figures) if one.cause == "contention")


@pytest.mark.parametrize(
    ("stacks", "by", "how"),
    [
        (("submit", "garbage"), "concurrent.futures", "submit slices of the list"),
        (("put", "put"), "queue", "Put many items into the queue at a time"),
        (("next", "next"), "multiprocessing.pool", "a large chunksize"),
    ],
)
def test_small_jobs_are_to_be_larger(stacks: tuple[str, str], by: str, how: str) -> None:
    verdict, finding = judged(*stacks)
    assert verdict.kind == "cpu-bound-contention"
    assert verdict.advice.startswith(f"The jobs are too small: handing them over ({by}) takes more")
    assert how in verdict.advice
    assert "use processes" not in verdict.advice
    assert finding.advice == verdict.advice
    assert verdict.evidence["hand_over_share"] == pytest.approx(1, abs=0.01)


def test_a_lock_that_they_are_handed_over_with_is_not_what_is_to_be_mended() -> None:
    made = taking_turns(python=True, at="next")
    made.stacks = STACKS
    verdict = judge(made.process(20 * TURN + 100 * US))
    assert verdict.kind == "lock-bound"
    assert verdict.advice.startswith("The jobs are too small: handing them over (multiprocessing.pool)")


@pytest.mark.parametrize("stack", ["in C", "job", "lock", "other"])
def test_jobs_that_take_long_and_other_work_are_not_taken_for_that(stack: str) -> None:
    """A job in C has no frame of its own; locks of the program's own, and others' queues, hand no jobs over."""
    verdict, finding = judged(stack, stack)
    assert verdict.kind == "cpu-bound-contention"
    assert verdict.advice.startswith("Threads cannot speed this up: use processes")
    assert finding.advice.startswith("Use processes")
    assert "hand_over_share" not in verdict.evidence


@pytest.mark.parametrize(
    ("ns", "told", "alone"),
    [
        ((60, 20, 20), " [put0 (queue.py:0) and 2 others]", False),
        ((29, 27, 20, 24), " [4 places, 29.0% of it put0 (queue.py:0)]", True),
        ((5,), " [put0 (queue.py:0)]", False),
    ],
)
def test_a_line_that_led_to_many_places_is_not_called_by_a_small_part(
    ns: tuple[int, ...], told: str, alone: bool
) -> None:
    sites = [Site("main", f"put{at}", QUEUE, at or -1, False, "main", "/srv/app.py", 8) for at in range(len(ns))]
    lines = [LineBlame(site, one) for site, one in zip(sites, ns, strict=True)]
    assert _leaf(lines) == told.replace(" (queue.py:0)", " (queue.py)")
    assert main_place(sites, np.array(ns)) == (own_line(sites[0]) if alone else sites[0])

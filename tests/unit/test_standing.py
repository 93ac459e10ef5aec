"""Where threads stand that do nothing, and where one is that keeps the GIL: what a person asks of a deadlock."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from giltrace.analysis.findings.verdict import judge
from giltrace.recording.events import SPAN, Spans
from giltrace.timeline.model import Process
from tests.unit.analysis_stacks import with_stacks
from tests.unit.gil_events import MS, PID, US, Kernel, Script, process

WAIT = "Event.wait (/usr/lib/python3.12/threading.py:600)"


def sampled(made: Process, *stacks: tuple[int, str]) -> Process:
    """Spans of a sampler that saw each of these (tid, frames, outermost first and split by ``|``) all the time."""
    frames = [(tid, depth, name) for tid, stack in stacks for depth, name in enumerate(stack.split("|"))]
    names = tuple(dict.fromkeys(name for _, _, name in frames))
    rows = [(made.start, made.end, tid, names.index(name), depth) for tid, depth, name in frames]
    spans = np.array(rows, SPAN) if rows else np.empty(0, SPAN)
    return replace(made, spans=(Spans("py-spy", PID, True, names, spans),))


def stuck(*, unused: bool) -> Process:
    """Two threads that were at work for a moment, or not at all, and then for 10 s not."""
    script, kernel = Script(tids=(PID, 101)), Kernel()
    if not unused:
        script.hold(0, 20 * US, 0).hold(30 * US, 50 * US, 1)
        kernel.run(0, 20 * US, PID).run(30 * US, 50 * US, 101)
    for tid in (PID, 101):
        kernel.run(60 * US, 61 * US, tid, 1)
    made = process(script, kernel.ended(10_000 * MS, PID).ended(10_000 * MS, 101))
    return replace(made, unused=unused)


def test_threads_that_do_nothing_are_told_where_they_stand() -> None:
    stacks = [[("one", "/srv/app.py", 7)], [("get", "/usr/lib/python3.12/queue.py", 9), ("two", "/srv/app.py", 11)]]
    made = with_stacks(stuck(unused=False), stacks, hold={0: 0, 1: 1})
    verdict = judge(made)
    assert verdict.kind == "idle"
    assert "'thread-0' at one (app.py:7), 'thread-1' at two (app.py:11): if they should be at work" in verdict.advice
    assert "deadlock" not in judge(stuck(unused=False)).advice


def test_a_sampler_tells_where_they_stand_where_nobody_used_the_gil() -> None:
    made = sampled(stuck(unused=True), (PID, f"<module> (/srv/app.py:14)|{WAIT}"), (101, "two (/srv/app.py:11)"))
    advice = judge(made).advice
    assert "'thread-0' at <module> (app.py:14), 'thread-1' at two (app.py:11)" in advice
    assert "py-spy dump" in judge(stuck(unused=True)).advice


@pytest.mark.parametrize(("known", "told"), [(True, " at native (app.py:4)."), (False, "for up to 292 ms.")])
def test_a_hog_that_never_gave_the_gil_up_is_told_by_a_sampler(known: bool, told: str) -> None:
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel().run(0, 10 * US, PID)
    script.acquire(MS, 1).request(2 * MS, 2)
    for at in range(7, 300, 5):
        script.timeout(at * MS, 2)
    kernel.run(MS, 299 * MS, 101).ended(299 * MS, 101).ended(299 * MS, 102).ended(299 * MS, PID)
    made = process(script, kernel, end=299 * MS)
    summary = judge(sampled(made, (101, "native (/srv/app.py:4)")) if known else made).summary
    assert told in summary.replace(", where", ".")

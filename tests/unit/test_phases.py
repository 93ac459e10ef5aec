"""A process whose character changes has phases, with a verdict each."""

from __future__ import annotations

from itertools import pairwise

import pytest

from giltrace.analysis.findings.phases import find_phases
from tests.synthetic import make_process
from tests.unit.gil_events import MS, PID, US, Kernel, Script, timeline


def phases(script: Script, kernel: Kernel | None) -> list[tuple[int, int, str]]:
    """Begin and end of each phase in ms, and its kind."""
    whole = timeline(script, kernel)
    found = find_phases(whole.processes[0], whole)
    return [(round(one.start_ns / MS), round(one.end_ns / MS), one.verdict.kind) for one in found]


def counting(script: Script, kernel: Kernel, at: int, end: int) -> int:
    """Threads 1 and 2 count in turns of 5 ms; return when they stop."""
    wanted = {1: at, 2: at}
    turn = 0
    while at < end:
        thread = 1 + turn % 2
        script.hold(at, at + 5 * MS, thread, asked=wanted[thread], forced=True)
        kernel.run(at - 5 * US, at + 5 * MS, 100 + thread, thread % 2)
        at, turn = at + 5 * MS + 20 * US, turn + 1
        wanted[thread] = at
    return at


def sleeping(script: Script, kernel: Kernel, at: int, end: int) -> int:
    """Threads 1 and 2 hold the GIL for 50 us every 10 ms; return when they stop."""
    while at < end:
        for thread in (1, 2):
            begin = at + thread * MS
            script.hold(begin, begin + 50 * US, thread)
            kernel.run(begin - 10 * US, begin + 60 * US, 100 + thread, thread - 1)
        at += 10 * MS
    return at


@pytest.mark.parametrize("contended_first", [False, True])
def test_two_phases_are_told_apart(contended_first: bool) -> None:
    script, kernel = Script().hold(0, 10 * US, 0), Kernel().run(0, 15 * US, PID)
    one, other = (counting, sleeping) if contended_first else (sleeping, counting)
    at = one(script, kernel, 100 * US, 1000 * MS)
    end = other(script, kernel, at + 100 * US, 2600 * MS)
    found = phases(script, kernel.ended(end, PID).ended(end, 101).ended(end, 102))
    kinds = ["cpu-bound-contention", "io-bound-handoff"]
    assert [kind for _, _, kind in found] == (kinds if contended_first else kinds[::-1])
    assert abs(found[0][1] - at / MS) <= 50
    assert (found[0][0], found[0][1], found[-1][1]) == (0, found[1][0], round(end / MS))


def test_one_character_is_no_phase() -> None:
    for kind in (counting, sleeping):
        script, kernel = Script().hold(0, 10 * US, 0), Kernel().run(0, 15 * US, PID)
        end = kind(script, kernel, 100 * US, 1000 * MS)
        assert phases(script, kernel.ended(end, PID).ended(end, 101).ended(end, 102)) == []


def test_a_moment_is_no_phase() -> None:
    script, kernel = Script().hold(0, 10 * US, 0), Kernel().run(0, 15 * US, PID)
    at = sleeping(script, kernel, 100 * US, 1000 * MS)
    at = counting(script, kernel, at + 100 * US, at + 40 * MS)
    end = sleeping(script, kernel, at + 100 * US, 2000 * MS)
    assert phases(script, kernel.ended(end, PID).ended(end, 101).ended(end, 102)) == []


def test_what_goes_to_and_fro_has_no_phases() -> None:
    script, kernel, at = Script().hold(0, 10 * US, 0), Kernel().run(0, 15 * US, PID), 100 * US
    for _ in range(4):
        at = counting(script, kernel, at + 100 * US, at + 250 * MS)
        at = sleeping(script, kernel, at + 100 * US, at + 250 * MS)
    assert phases(script, kernel.ended(at, PID).ended(at, 101).ended(at, 102)) == []


def test_nothing_short_or_empty_has_phases() -> None:
    assert phases(Script(), None) == []
    assert phases(Script().hold(0, 10 * MS, 0), None) == []


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sched", [True, False])
def test_phases_follow_each_other_from_the_start_to_the_end(seed: int, sched: bool) -> None:
    made = make_process(threads=5, holds=600, gils=1 + seed % 2, sched=sched, seed=seed)
    found = find_phases(made, timeline([]))
    assert all(one.end_ns == other.start_ns for one, other in pairwise(found))
    assert len(found) != 1
    if found:
        assert (found[0].start_ns, found[-1].end_ns) == (0, made.end - made.start)

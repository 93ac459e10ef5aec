"""One thread that the others serve, and one that only keeps the GIL from them."""

from __future__ import annotations

import pytest

from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.verdict import judge
from giltrace.timeline.model import Process
from tests.unit.block_events import Scene
from tests.unit.gil_events import MS, US
from tests.unit.lock_scenes import STACKS

TURNS = 30


def keeping(held: int, *, asleep: bool, served: int, ran: int = 100 * US) -> Process:
    """Thread 1 has the GIL for `held` in each turn, of which it only `ran` for so long if it is `asleep`; thread 2
    wants it 1 ms later, `served` times woken up by thread 1 and else by its own clock.

    The main thread joins thread 1.
    """
    made, turn = Scene(3, STACKS).hold(0, 10 * US, 0, "start"), held + 2 * MS
    for item in range(TURNS):
        begin, end = item * turn + 20 * US, item * turn + 20 * US + held
        if asleep:
            made.keep(begin, end, 1, "call", ran=ran)
        else:
            made.hold(begin, end, 1, "call")
        if item < served:
            made.block(begin - 15 * US, begin + MS, 2, at="get", by=1, wake="call", owned=False)
        made.script.request(begin + MS, 2)
        for late in range(begin + 6 * MS, end, 5 * MS):
            made.script.timeout(late, 2)
        made.run(begin + MS, begin + MS + 5 * US, 2)
        made.hold(end + US, end + 51 * US, 2, "tick")
    last = TURNS * turn
    made.block(12 * US, last + 20 * US, 0, at="join", lock=1, by=1, owned=False)
    made.hold(last, last + 10 * US, 1, "call").hold(last + 20 * US, last + 40 * US, 0, "end")
    made.ends = {1: last + 15 * US, 2: last}
    return made.process(last + 50 * US)


def test_who_sleeps_with_the_gil_keeps_it_from_those_that_wake_up_by_themselves() -> None:
    """One wait that it did wake somebody up for does not make the others such."""
    verdict = judge(keeping(30 * MS, asleep=True, served=1))
    assert verdict.kind == "hog"
    assert "slept in the kernel with it" in verdict.summary
    assert "call (app.py:1)" in verdict.summary
    assert "costs nothing" not in verdict.advice


def test_who_sleeps_with_the_gil_keeps_it_also_from_those_that_it_has_woken_up() -> None:
    assert judge(keeping(30 * MS, asleep=True, served=TURNS)).kind == "hog"


@pytest.mark.parametrize("served", [1, TURNS])
@pytest.mark.parametrize("ran", [100 * US, MS])
def test_sleeps_with_the_gil_that_nobody_had_the_time_to_ask_for_are_told(ran: int, served: int) -> None:
    verdict = judge(keeping(4 * MS, asleep=True, served=served, ran=ran))
    assert verdict.kind == "hog"
    assert "somebody waited for a thread that slept in the kernel with the GIL, " in verdict.summary
    assert "most of it worker-* did, at call (app.py:1)" in verdict.summary
    assert "PyDLL" in verdict.advice


@pytest.mark.parametrize(("served", "found"), [(TURNS, True), (TURNS * 3 // 4, False), (1, False)])
def test_the_others_serve_it_only_if_it_has_woken_them_up(served: int, found: bool) -> None:
    verdict = judge(keeping(5 * MS, asleep=False, served=served))
    assert verdict.summary.startswith("One thread is what all hangs on") is found


def test_what_the_end_hung_on_is_not_called_python_where_it_slept_with_the_gil() -> None:
    first = Costed(keeping(30 * MS, asleep=True, served=1)).on_path[0]
    assert (first.doing, first.site.own_function) == ("asleep-with-gil", "call")
    assert Costed(keeping(30 * MS, asleep=False, served=1)).on_path[0].doing == "python"

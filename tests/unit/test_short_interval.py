"""A switch interval far below Python's own is told where what it costs is on record."""

from __future__ import annotations

import pytest

from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.verdict import judge
from tests.unit.gil_events import PID, US, Kernel, Script, process


def judged(interval_us: int, free: int) -> Verdict:
    """Two threads compute; each is made to give the GIL up after 200 us at least, which is then `free` for so long."""
    script, kernel = Script(tids=(PID, 101, 102)).hold(0, 10 * US, 0), Kernel()
    at, turn = 10 * US, max(200, interval_us + 20) * US
    for number in range(2_000 * US * 200 // turn):
        mine = 1 + number % 2
        script.acquire(at, mine).request(at + 10 * US, 3 - mine)
        script.timeout(at + (10 + interval_us) * US, 3 - mine, us=interval_us).release(at + turn, mine, forced=True)
        kernel.run(at, at + turn, 100 + mine, mine)
        at += turn + free
    return judge(process(script, kernel, end=at))


def test_what_a_short_one_costs() -> None:
    verdict = judged(1, 10 * US)
    assert verdict.kind == "cpu-bound-contention"
    assert verdict.advice.startswith("Threads cannot speed this up")
    assert "The switch interval was 1.00 us where Python starts with 5.00 ms" in verdict.advice
    assert "set it back to 0.005" in verdict.advice
    assert verdict.evidence["switch_interval_ns"] == 1000
    assert verdict.evidence["forced_releases"] == 2000
    assert verdict.evidence["passed_on_share"] == pytest.approx(10 / 210, rel=0.01)


@pytest.mark.parametrize(("interval_us", "free"), [(1, US), (5000, 200 * US)])
def test_what_costs_nothing_or_is_pythons_own_is_not_told(interval_us: int, free: int) -> None:
    verdict = judged(interval_us, free)
    assert verdict.kind == "cpu-bound-contention"
    assert "switch interval" not in verdict.advice
    assert "switch_interval_ns" not in verdict.evidence

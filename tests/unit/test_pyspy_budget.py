"""What py-spy may cost: the account of CPU times, and what follows from it."""

from __future__ import annotations

import os

import pytest

from giltrace.collectors import _pyspy_budget
from giltrace.collectors._pyspy_budget import Budget

SECOND = 1_000_000_000


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> dict[int, float]:
    """The CPU seconds of each process; one that is not in it is gone."""
    seconds: dict[int, float] = {}
    monkeypatch.setattr(_pyspy_budget, "cpu_seconds", seconds.get)
    return seconds


def test_sampling_a_process_that_works_goes_on(taken: dict[int, float]) -> None:
    budget = Budget(100)
    for second in range(100):
        taken.update({1: second, 1001: 0.05 * second})
        assert budget.look(second * SECOND + SECOND, [1], {1: 1001}, 0.0) == []


def test_one_that_sleeps_is_sampled_until_the_least_is_spent(taken: dict[int, float]) -> None:
    budget = Budget(100)
    ended = []
    for second in range(100):
        taken.update({1: 0.02, 1001: 0.02 * second})
        ended += budget.look(second * SECOND + SECOND, [1], {1: 1001}, 0.0)
        if ended:
            assert taken[1001] == pytest.approx(_pyspy_budget.LEAST_SECONDS, abs=0.03)
            break
    assert ended == [1]
    assert not budget.has_room()


def test_those_that_do_least_are_ended_first(taken: dict[int, float]) -> None:
    budget = Budget(100)
    taken.update(dict.fromkeys((1, 2, 3, 4), 0.0) | dict.fromkeys((1001, 1002, 1003, 1004), 0.0))
    samplers = {pid: 1000 + pid for pid in (1, 2, 3, 4)}
    assert budget.look(SECOND, samplers, samplers, 0.0) == []
    taken.update({1: 0.9, 2: 0.0, 3: 0.5, 4: 0.1} | dict.fromkeys(samplers.values(), 0.2))
    assert budget.look(2 * SECOND, samplers, samplers, 0.0) == [2, 4]


def test_it_goes_on_more_slowly_once_the_processes_have_paid_for_it(taken: dict[int, float]) -> None:
    budget = Budget(100)
    taken.update({1: 0.0, 1001: 0.0})
    budget.look(SECOND, [1], {1: 1001}, 0.0)
    taken.update({1: 0.0, 1001: 0.6})
    assert budget.look(2 * SECOND, [1], {1: 1001}, 0.0) == [1]
    taken.update({1: 0.9})
    budget.look(3 * SECOND, [1], {}, 0.6)
    assert not budget.has_room()
    taken.update({1: 7.0})
    budget.look(13 * SECOND, [1], {}, 0.6)
    assert budget.has_room()
    assert (budget.rate(1, 0), budget.rate(1, 1), budget.rate(1, 2)) == (100, 20, 5)
    taken.update({1: 7.1})
    budget.look(23 * SECOND, [1], {}, 0.6)
    assert budget.rate(1, 1) == 5  # 1 % of a core pays for no more


def test_processes_that_have_done_little_are_not_worth_it(taken: dict[int, float]) -> None:
    budget = Budget(100)
    taken.update({1: 5.0})  # before it was seen
    budget.look(SECOND, [1], {}, 0.0)
    assert not budget.is_worth(1)
    taken.update({1: 5.3})
    budget.look(2 * SECOND, [1], {}, 0.0)
    assert budget.is_worth(1)


def test_it_looks_at_real_processes() -> None:
    while (seconds := _pyspy_budget.cpu_seconds(os.getpid())) == 0.0:
        pass
    assert seconds is not None
    assert seconds <= sum(os.times()[:2]) + 0.02
    assert _pyspy_budget.cpu_seconds(1 << 29) is None

"""How long a GIL is held, followed stretch by stretch."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from giltrace.collectors.rules.held import _Gil


def had(gil: _Gil, turns: list[tuple[int, bool]], start: int, end: int) -> int:
    time = np.array([at for at, _ in turns], np.int64)
    return gil.had(time, np.array([takes for _, takes in turns], np.bool_), start, end)


def test_a_hold_goes_on_from_one_stretch_to_the_next() -> None:
    gil = _Gil()
    assert had(gil, [(10, True), (30, False), (90, True)], 0, 100) == 30
    assert had(gil, [], 100, 200) == 100
    assert had(gil, [(250, False)], 200, 300) == 50
    assert had(gil, [], 300, 400) == 0


def test_what_is_told_late_counts_no_longer_than_the_stretch() -> None:
    gil = _Gil(taken=True)
    assert had(gil, [(90, False), (95, True)], 100, 200) == 100


@pytest.mark.parametrize("lost", [0, 1, 2, 3])
def test_a_turn_that_was_lost_is_forgotten_with_the_next(lost: int) -> None:
    turns = [(10, True), (20, False), (30, True), (40, False)]
    gil = _Gil()
    had(gil, turns[:lost] + turns[lost + 1 :], 0, 50)
    assert had(gil, [(60, True), (70, False)], 50, 100) in (10, 20)
    assert had(gil, [(110, True), (120, False)], 100, 200) == 10


@given(st.lists(st.integers(0, 1000), unique=True, max_size=30), st.lists(st.integers(0, 1000), max_size=8))
def test_it_is_the_same_however_it_is_cut(times: list[int], cuts: list[int]) -> None:
    turns = [(time, at % 2 == 0) for at, time in enumerate(sorted(times))]
    whole = had(_Gil(), turns, 0, 1000)
    bounds = sorted({0, 1000, *cuts})
    gil = _Gil()
    parts = [
        had(gil, [one for one in turns if start <= one[0] < end or one[0] == end == 1000], start, end)
        for start, end in pairwise(bounds)
    ]
    assert sum(parts) == whole

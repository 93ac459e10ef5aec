"""How many threads were in which states at once, against a plain count."""

from __future__ import annotations

import numpy as np
import pytest

from giltrace.analysis.measure import at_once
from giltrace.timeline.model import STATE, State

KINDS = ((State.HOLDING_RUNNING, State.OFF_RUNNING), (State.OFF_BLOCKED,), (State.HOLDING_RUNNING, State.WAITING))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("kinds", [1, 3])
def test_levels_are_those_of_a_plain_count(seed: int, kinds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_once, "_PIECE", 7)
    random = np.random.default_rng(seed)
    rows = []
    for thread in range(int(random.integers(1, 4))):
        edges = np.sort(random.choice(60, int(random.integers(2, 20)), replace=False)) + 1_000
        kind = random.integers(0, len(State), len(edges) - 1)
        rows += [(*ends, thread, state) for *ends, state in zip(edges[:-1], edges[1:], kind, strict=True)]
    states = np.array(rows, STATE)
    # As of rows that were chosen: with gaps.
    states = states[random.random(len(states)) < 0.8]
    times, found = [np.empty(0, np.int64)], [[np.empty(0, np.int64)] for _ in range(kinds)]
    piece = times[0]
    for piece, counts in at_once.levels(states, KINDS[:kinds]):
        assert {len(count) for count in counts} == {len(piece) - 1}
        times.append(piece[:-1])
        for parts, count in zip(found, counts, strict=True):
            parts.append(count)
    time = np.concatenate([*times, piece[-1:]])
    for some, parts in zip(KINDS[:kinds], found, strict=True):
        count = np.concatenate(parts)
        for instant in range(995, 1_065):
            there = (states["start"] <= instant) & (states["end"] > instant) & np.isin(states["state"], some)
            at = int(np.searchsorted(time, instant, "right")) - 1
            assert (int(count[at]) if 0 <= at < len(count) else 0) == int(there.sum())

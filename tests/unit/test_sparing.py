"""Work that takes a tenth of the time at most."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from giltrace.launch.attach.sparing import Sparing


def test_it_rests_ten_times_as_long_as_it_took(monkeypatch: pytest.MonkeyPatch) -> None:
    now, done = 100.0, list[float]()

    def work() -> None:
        nonlocal now
        done.append(now)
        now += 0.5

    monkeypatch.setattr("giltrace.launch.attach.sparing.time", SimpleNamespace(monotonic=lambda: now))
    look = Sparing(work)
    for _ in range(100):
        look()
        now += 0.25
    assert done == [100.0, 105.5, 111.0, 116.5, 122.0]

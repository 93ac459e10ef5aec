"""What the exact collector says that it cost: never more exactly than it was measured."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from giltrace import native
from giltrace.collectors.gil import GilCollector
from giltrace.recording import layout
from giltrace.recording.layout import Kind
from tests.live_files import TracerFile, word


@pytest.fixture(autouse=True)
def _cheap_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "pair_cost_ns", lambda: 20.0)


def release_twice(folder: Path) -> TracerFile:
    file = TracerFile(folder, status=layout.Status.HOOKED | layout.Status.GIL_SEEN)
    file.write(file.chunk(0), *(word(kind, time) for time in (1, 2) for kind in (Kind.ACQUIRE, Kind.RELEASE)))
    return file


def test_the_cost_is_a_lower_bound(tmp_path: Path) -> None:
    release_twice(tmp_path)
    cost = GilCollector().report(tmp_path).cost
    assert re.match(r"2 release\+acquire pairs x 20 ns in a tight loop.* = at least 0\.0 ms$", cost)


def set_head(file: TracerFile, **fields: int) -> None:
    assert layout.HEADER.fields is not None
    with file.path.open("r+b") as raw:
        for name, value in fields.items():
            dtype, at, *_ = layout.HEADER.fields[name]
            raw.seek(at)
            raw.write(np.array(value, dtype).tobytes())


def test_what_took_longer_is_added(tmp_path: Path) -> None:
    set_head(release_twice(tmp_path), slow_ticks=3_500_000)
    assert GilCollector().report(tmp_path).cost == (
        "2 release+acquire pairs x 20 ns in a tight loop, as the tracer was one that times nothing, "
        "+ 3.5 ms for new stacks and space = at least 3.5 ms"
    )


def test_too_few_uses_for_any_to_be_timed(tmp_path: Path) -> None:
    set_head(release_twice(tmp_path), timed_every=64)
    assert "in a tight loop, as nothing was timed, +" in GilCollector().report(tmp_path).cost


def test_what_was_timed_stands_for_the_rest(tmp_path: Path) -> None:
    # Two that took 30,000 and 50,000 ns, and one whose thread lost its core: as if it were one more of the two.
    sample = {"timed": 2, "timed_ticks": 80_000, "timed_squares": 30_000**2 + 50_000**2, "timed_interrupted": 1}
    set_head(release_twice(tmp_path), timed_every=64, slow_ticks=1_000_000, **sample)
    # 64 x 3 / 2 = 96 times 80,000 ns; and the root of 96 x 95 x (9 + 25) x 10^8 ns^2.
    assert GilCollector().report(tmp_path).cost == (
        "2 release+acquire pairs: hooks 7.7 +- 5.6 ms by a sample of 2 uses, 40000 +- 10000 ns each, "
        "+ 1.0 ms for new stacks, looks and space = 8.7 ms"
    )


def test_a_program_that_is_not_python_is_nothing_that_was_traced(tmp_path: Path) -> None:
    TracerFile(tmp_path, status=layout.Status.NOT_PYTHON)
    assert not GilCollector().report(tmp_path).ok

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
    assert re.match(r"2 release\+acquire pairs x 20 ns.* = at least 0\.0 ms$", GilCollector().report(tmp_path).cost)


def test_what_took_longer_is_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "slow_ticks" not in (layout.HEADER.names or ()):
        fields = [(name, layout.HEADER[name]) for name in layout.HEADER.names or ()]
        monkeypatch.setattr(layout, "HEADER", np.dtype([*fields, ("slow_ticks", "<u8")]))
    file = release_twice(tmp_path)
    head = np.zeros(1, layout.HEADER)
    at = layout.HEADER.fields["slow_ticks"][1] if layout.HEADER.fields else 0
    head["slow_ticks"] = 3_500_000
    with file.path.open("r+b") as raw:
        raw.seek(at)
        raw.write(head["slow_ticks"].tobytes())
    cost = GilCollector().report(tmp_path).cost
    assert cost == "2 release+acquire pairs x 20 ns + 3.5 ms for new stacks and space = at least 3.5 ms"


def test_a_program_that_is_not_python_is_nothing_that_was_traced(tmp_path: Path) -> None:
    TracerFile(tmp_path, status=layout.Status.NOT_PYTHON)
    assert not GilCollector().report(tmp_path).ok

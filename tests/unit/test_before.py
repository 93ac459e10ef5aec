"""Holds that began before anybody counted: whose GIL is which, by what the tracer has said of them so far."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from giltrace.launch.counting import Holder
from giltrace.metrics.before import Before
from giltrace.recording import layout
from tests.made_readings import SECOND, counts, reading

PID = 7
MAIN, OTHER, LATER = 0x1000, 0x2000, 0x3000
HOLDERS = (Holder(PID, 0, "", MAIN), Holder(PID, 70, "worker-1", OTHER))


def head(folder: Path, *gils: int) -> None:
    """The head of the tracer's file, with the addresses of so many GILs."""
    data = np.zeros(1, layout.HEADER)
    data["magic"], data["version"], data["pid"], data["start_ns"] = layout.MAGIC, layout.VERSION, PID, SECOND // 2
    data["gils"][0, : len(gils)] = gils
    (folder / f"gil-{PID}-0.bin").write_bytes(data.tobytes().ljust(layout.HEADER_SIZE, b"\0"))


def test_a_gil_that_has_not_said_its_address_yet_gets_no_number(tmp_path: Path) -> None:
    before = Before(tmp_path, HOLDERS)
    one = reading(PID, 1.0, {}, elsewhere={("worker-*", "1"): counts(3)})
    head(tmp_path, MAIN)
    (told,) = before.added_to((one,), alive=True)
    assert [(role.gil, role.counts.holds, role.counts.held_ns) for role in told.roles] == [("1", 0, SECOND // 2)]
    head(tmp_path, MAIN, LATER, OTHER)
    two = reading(PID, 1.0, {}, elsewhere={("worker-*", "1"): counts(3), ("worker-*", "2"): counts(4)})
    (told,) = before.added_to((two,), alive=True)
    assert {role.gil: role.counts.holds for role in told.roles} == {"1": 4, "2": 3}

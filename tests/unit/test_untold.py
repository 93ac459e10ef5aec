"""Where the end does not hang on waits for the GIL, the factor of the replay says nothing of what these cost."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.findings.untold import with_untold
from giltrace.analysis.replay.what_if import what_if
from giltrace.analysis.report import analyse
from giltrace.analysis.results import WhatIf
from giltrace.reports.terminal import print_report
from giltrace.timeline.model import Process
from tests.synthetic import make_timeline
from tests.unit.block_events import Scene
from tests.unit.gil_events import MS, US


def served(*, main_sleeps: bool = False, victim: bool = True) -> Process:
    """Thread 1 runs to the end of all, in holds of 40 ms, and ends with it; thread 2 is late for each of its steps.

    The main thread joins thread 1, or sleeps to the end.
    """
    scene, at = Scene(3).hold(0, 10 * US, 0, "start"), 10 * US
    for _ in range(20):
        scene.hold(at, at + 40 * MS, 1, "hog")
        if victim:
            scene.script.request(at + MS, 2)
            scene.hold(at + 40 * MS + US, at + 40 * MS + 10 * US, 2, "step")
        at += 40 * MS + 20 * US
    if not main_sleeps:
        scene.block(20 * US, at + 20 * US, 0, at="join", by=1, woken=at + 10 * US, owned=False)
        scene.hold(at, at + 10 * US, 1, "last").hold(at + 20 * US, at + 30 * US, 0, "end")
    else:
        scene.hold(at + 20 * US, at + 30 * US, 0, "end")
    return scene.process(at + 40 * US)


def told(process: Process, cores: int = 2) -> WhatIf:
    figures = Costed(process)
    return with_untold(figures, what_if(process, cores, figures.native))


def page(process: Process) -> str:
    out = io.StringIO()
    print_report(analyse(make_timeline(process)), Console(file=out, width=300))
    return out.getvalue().split("What would change without a GIL\n")[1].split("\n\n")[0]


def test_waits_that_the_end_did_not_hang_on_are_told() -> None:
    found = told(served())
    assert found.speedup_bound < 1.05
    assert found.untold_ns == pytest.approx(20 * 39 * MS, rel=0.01)
    assert not found.by_clock


def test_an_end_by_the_clock_is_told_as_that() -> None:
    assert told(served(main_sleeps=True)).by_clock
    for end_of in ("recording", "window"):
        assert told(replace(served(), end_of=end_of)).by_clock


def test_nothing_is_told_where_hardly_anybody_waited_or_no_core_is_left() -> None:
    assert told(served(victim=False)).untold_ns == 0
    assert told(served(), cores=1).untold_ns == 0


def test_the_report_has_a_sentence_instead_of_a_factor() -> None:
    text = page(served())
    assert "x as fast" not in text
    assert "hardly hung on waits for the GIL" in text
    assert "of waiting for the GIL, all threads together, would be gone" in text
    assert "hung on the clock or on what came from outside" in page(served(main_sleeps=True))
    assert "x as fast" in page(served(victim=False))

"""What is said of a process that hardly ran anything, but an event loop."""

from __future__ import annotations

import pytest

from giltrace.analysis.findings.verdict import judge
from tests.unit.analysis_stacks import Frame, with_stacks
from tests.unit.gil_events import process
from tests.unit.test_summary_verdict import idle


@pytest.mark.parametrize(
    ("frames", "how"),
    [
        ([("run_forever", "/usr/lib/python3.12/asyncio/base_events.py", 600)], "asyncio.all_tasks()"),
        ([("unrolled_run", "/venv/lib/trio/_core/_run.py", 2400)], "by its own tools"),
    ],
)
def test_tasks_of_an_idle_event_loop_may_wait_for_each_other(frames: list[Frame], how: str) -> None:
    advice = judge(with_stacks(process(*idle()), [frames], hold={0: 0})).advice
    assert "its tasks waited for I/O, for timers or for each other" in advice
    assert how in advice
    assert "Record while" not in advice


def test_without_a_loop_there_is_nothing_to_tell_of_tasks() -> None:
    advice = judge(with_stacks(process(*idle()), [[("main", "/srv/app.py", 3)]], hold={0: 0})).advice
    assert advice == "Record while the process has work to do."

"""What threads were asleep for, told by the innermost frames of their stacks, or by what they called."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from giltrace.analysis.measure.asleep_causes import AsleepCause, asleep_causes
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.measure.expressions import Expressions
from giltrace.timeline.model import Process
from tests.unit.analysis_stacks import Frame, stack_table
from tests.unit.block_events import Scene
from tests.unit.gil_events import US

LIB = "/usr/lib/python3.12"
APP = ("serve", "/srv/app.py", 1)


def library(*names: str) -> list[Frame]:
    """Frames of the standard library, or of packages, innermost first, called by the program."""
    return [*(("wait", f"{LIB}/{name}.py", 100) for name in names), APP]


def standing(*stacks: list[Frame]) -> Process:
    """A process with these stacks."""
    made = Scene(1).hold(0, US, 0, "here").process(2 * US)
    assert made.stacks is not None
    return replace(made, stacks=replace(made.stacks, table=stack_table(list(stacks))))


def told(made: Process, *, before: int = 0) -> list[AsleepCause]:
    assert made.stacks is not None
    found = asleep_causes(made, np.arange(len(made.stacks.table)), Expressions(made, before))
    return [AsleepCause(one) for one in found.tolist()]


@pytest.mark.parametrize(
    ("files", "cause"),
    [
        ((), AsleepCause.UNKNOWN),
        (("sqlite3/dbapi2",), AsleepCause.UNKNOWN),
        (("selectors",), AsleepCause.READY_IO),
        (("selectors", "asyncio/base_events"), AsleepCause.READY_IO),
        (("socket", "http/client"), AsleepCause.SOCKET),
        (("ssl", "socket", "http/client"), AsleepCause.SOCKET),
        (("subprocess",), AsleepCause.PROCESS_END),
        (("selectors", "subprocess", "subprocess"), AsleepCause.PROCESS_END),
        (("multiprocessing/synchronize",), AsleepCause.PROCESS_LOCK),
        (("multiprocessing/synchronize", "multiprocessing/queues", "multiprocessing/pool"), AsleepCause.PROCESS_QUEUE),
        (("multiprocessing/connection", "multiprocessing/connection"), AsleepCause.PROCESS_MESSAGE),
        (("multiprocessing/connection", "multiprocessing/queues"), AsleepCause.PROCESS_QUEUE),
        (("selectors", "multiprocessing/connection", "concurrent/futures/process"), AsleepCause.PROCESS_MESSAGE),
        (("multiprocessing/popen_fork", "multiprocessing/process"), AsleepCause.PROCESS_END),
        (("site-packages/billiard/synchronize", "site-packages/billiard/queues"), AsleepCause.PROCESS_QUEUE),
        (("site-packages/joblib/externals/loky/backend/synchronize",), AsleepCause.PROCESS_LOCK),
        # A user's module of the same name.
        (("site-packages/shop/queues",), AsleepCause.UNKNOWN),
    ],
)
def test_by_the_frames(files: tuple[str, ...], cause: AsleepCause) -> None:
    assert told(standing(library(*files))) == [cause]


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("time.sleep(1)", AsleepCause.SLEEP),
        ("sleep(1)", AsleepCause.SLEEP),
        ("def sleep(seconds):", AsleepCause.UNKNOWN),
        ("data = client.recv(4096)", AsleepCause.SOCKET),
        ("ready = select.select([one], [], [])", AsleepCause.READY_IO),
        ("os.waitpid(child, 0)", AsleepCause.PROCESS_END),
        ("shared.acquire()", AsleepCause.PROCESS_LOCK),
        ("os.read(pipe, 1)", AsleepCause.UNKNOWN),
    ],
)
def test_by_what_was_called(line: str, cause: AsleepCause, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(line)
    assert told(standing([("serve", str(app), 1)]), before=time.time_ns() + 10**9) == [cause]
    assert told(standing([("serve", "/srv/gone.py", 1)])) == [AsleepCause.UNKNOWN]


def test_without_stacks() -> None:
    bare = replace(standing([APP]), stacks=None)
    assert asleep_causes(bare, np.array([-1, 3]), Expressions(bare, 0)).tolist() == [0, 0]


def test_words_are_no_others_causes() -> None:
    labels = {cause.label for cause in AsleepCause} - {""}
    assert labels & {cause.label for cause in BlockCause} == {"process-lock"}
    assert len(AsleepCause) <= len(BlockCause)

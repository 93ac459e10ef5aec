"""Where a thread of a running interpreter stands, seen from outside."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from giltrace.errors import TargetError
from giltrace.process.standing import Onlooker, Standing
from giltrace.recording.lines import LineTable
from tests.interpreters import Interpreter, interpreters

PROGRAM = """
import asyncio, gc, os, sys, threading
def spin():
    while True:
        pass
def collect():
    kept = [[[]] for _ in range(200000)]
    while True:
        gc.collect()
async def task():
    print(threading.get_native_id(), flush=True)
    {"spin": spin, "collect": collect}[sys.argv[1]]()
async def main():
    await asyncio.ensure_future(task())
asyncio.run(main())
"""
BUILDS = [pytest.param(one, id=one.id) for one in interpreters()]


@contextmanager
def running(python: Interpreter, what: str) -> Iterator[tuple[int, int]]:
    """The ids of a process that does that, and of the thread that does."""
    command = [str(python.path), "-c", PROGRAM, what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


def names(standing: Standing) -> list[str]:
    return [code.function.rpartition(".")[2] for code, _ in standing.frames]


@pytest.mark.parametrize("python", BUILDS)
def test_frames_lines_and_the_task_are_read(python: Interpreter) -> None:
    with running(python, "spin") as (pid, tid):
        if python.free_threaded:
            with pytest.raises(TargetError, match="free-threaded"):
                Onlooker(pid)
            return
        onlooker = Onlooker(pid)
        standing = onlooker.look(tid)
        # The thread may just be on its way there.
        while standing is None or names(standing)[0] != "spin":
            standing = onlooker.look(tid)
        assert names(standing)[:4] == ["spin", "task", "_run", "_run_once"]
        assert names(standing)[-1] == "<module>"
        code, offset = standing.frames[1]
        assert code.file == "<string>"
        assert LineTable(onlooker.version, code.first_line, code.table).line(offset) == 12
        assert standing.holds
        assert not standing.collecting
        assert onlooker.holders() == [tid]
        assert standing.task == ("Task-2" if python.version >= (3, 14) else "")
        assert onlooker.look(1) is None
        onlooker.close()


@pytest.mark.parametrize("python", [one for one in BUILDS if not one.values[0].free_threaded])  # type: ignore[union-attr]
def test_a_collection_is_seen(python: Interpreter) -> None:
    with running(python, "collect") as (pid, tid):
        onlooker = Onlooker(pid)
        # A look takes a moment, in which a collection may begin. The test's own limit ends this.
        while (standing := onlooker.look(tid)) is None or not (standing.collecting and "collect" in names(standing)):
            pass
        onlooker.close()


def test_what_is_no_python_is_refused() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        with pytest.raises(TargetError):
            Onlooker(other.pid)
        other.kill()

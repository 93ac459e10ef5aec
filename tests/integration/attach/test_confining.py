"""A program that puts a seccomp filter on while it is attached to goes on as if it were bare.

The filter kills for what the program has no need of: files to write, other processes' memory, a thread's name.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from giltrace import native
from giltrace.errors import TargetError
from giltrace.launch.attach import refusals
from giltrace.launch.attach.filters import Filters
from giltrace.launch.attach.footprint import Footprint
from giltrace.launch.attach.inject import Plan, inject, visiting
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.session import Outcome, attach
from giltrace.recording import layout
from tests.attaching import Running
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, of_kind, read

CONFINING = TARGETS / "hosts" / "confining.py"
#: More than what is taken ahead has room for.
MANY, FEW = 1_200_000, 100

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the filter names x86-64's system calls")

LIBRARY = """
#include <sys/prctl.h>
int confine(void *program) {
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) | prctl(PR_SET_SECCOMP, 2, program, 0, 0);
}
"""


class Confining(Running):
    """The program, which waits to be told to confine itself by `words`."""

    def __init__(self, python: Path | str, way: str, *words: Path | str | int) -> None:
        super().__init__(python, way, *words, target=CONFINING, flags=("-W", "ignore"), stderr=subprocess.PIPE)

    def confines(self) -> None:
        """Let it put the filter on."""
        self.go_on()
        assert self.line() == "confined"

    def ends(self) -> None:
        """Let it go on to its end, which is to be as if it were bare."""
        self.go_on()
        out, errors = self.process.communicate(timeout=100)
        assert (self.process.returncode, out, errors) == (0, "alive\n", "")


def attached(program: Confining, folder: Path, then: Callable[[], None]) -> Outcome:
    """Attach, have `then` done beside it once the tracer is at work, and record until the program ends, or SIGINT."""
    with ThreadPoolExecutor(1) as beside:
        done: list[Future[None]] = []

        def progress(seconds: float, events: int) -> None:
            if not done:
                done.append(beside.submit(then))

        outcome = attach(program.pid, folder, [], depth=64, progress=progress)
        done[0].result()
    return outcome


def head(folder: Path, pid: int) -> np.void:
    found: np.void = np.fromfile(folder / f"gil-{pid}-0.bin", layout.HEADER, 1)[0]
    return found


def wait_until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.005)


@pytest.mark.on_some
@pytest.mark.parametrize("way", ["prctl", "tsync"])
def test_until_what_was_taken_ahead_is_used_up(interpreter: Interpreter, way: str, tmp_path: Path) -> None:
    folder = tmp_path / "x.giltrace"

    def go_on() -> None:
        program.confines()
        program.ends()

    with Confining(interpreter.path, way, MANY) as program:
        assert attached(program, folder, go_on).said == []
    (process,) = read(folder)
    assert head(folder, process.pid)["confined"] == 1
    assert process.lost > 0
    assert "no more room" in process.note
    releases = of_kind(process.events, layout.Kind.RELEASE)
    assert len(releases) > MANY // 2
    assert (releases["stack"] >= 0).mean() > 0.99


@pytest.fixture(scope="module", params=["lazy", "now"])
def library(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that confines, whose imports are bound when they are first used, or when it is loaded."""
    out = tmp_path_factory.mktemp("confine") / "confine.so"
    words = ["cc", "-shared", "-fPIC", f"-Wl,-z,{request.param}", "-o", str(out), "-x", "c", "-"]
    subprocess.run(words, input=LIBRARY, text=True, check=True, timeout=60)
    return out


def check_all_is_there(program: Confining, folder: Path) -> None:
    def go_on() -> None:
        program.confines()
        program.ends()

    assert attached(program, folder, go_on).said == []
    (process,) = read(folder)
    assert head(folder, process.pid)["confined"] == 1
    assert (process.lost, process.note) == (0, "")
    counts = np.bincount(of_kind(process.events, layout.Kind.RELEASE)["thread"])
    assert (np.sort(counts)[-7:] >= FEW).all(), "the main thread, three that were there, and three that came later"


@pytest.mark.parametrize("way", ["syscall", "kept"])
def test_each_way_of_asking_libc(way: str, tmp_path: Path) -> None:
    with Confining(sys.executable, way, FEW) as program:
        check_all_is_there(program, tmp_path / "x.giltrace")


@pytest.mark.needs("cc")
@pytest.mark.parametrize("loaded", ["before", "after"])
def test_a_library_that_asks_libc(loaded: str, library: Path, tmp_path: Path) -> None:
    with Confining(sys.executable, loaded, FEW, library) as program:
        check_all_is_there(program, tmp_path / "x.giltrace")


def test_a_filter_that_no_function_of_libc_put_on_is_seen_from_outside(
    interpreter: Interpreter, tmp_path: Path
) -> None:
    """The program uses the GIL only after that: between the two it would be killed."""
    folder = tmp_path / "x.giltrace"

    def go_on() -> None:
        program.confines()
        wait_until(lambda: bool(head(folder, program.pid)["control"] & layout.Control.CONTROL_CONFINED))
        program.ends()

    with Confining(interpreter.path, "own", FEW) as program:
        assert attached(program, folder, go_on).said == []
    (process,) = read(folder)
    assert head(folder, process.pid)["confined"] == 1
    assert process.lost > 0


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "asleep"])
def test_the_tracer_steps_aside_without_a_call(interpreter: Interpreter, busy: bool, tmp_path: Path) -> None:
    """Detached from a program that uses the GIL, or whose threads all sleep, and that goes on afterwards."""

    def go_on() -> None:
        program.confines()
        if busy:
            program.go_on()
        os.kill(os.getpid(), signal.SIGINT)

    with Confining(interpreter.path, "tsync", MANY // 4) as program:
        outcome = attached(program, tmp_path / "x.giltrace", go_on)
        assert outcome.said == [
            f"process {program.pid} has put a seccomp filter on: the tracer's hooks stay in it, idle"
        ]
        program.ends()


def test_a_child_that_confines_itself(interpreter: Interpreter, tmp_path: Path) -> None:
    folder = tmp_path / "x.giltrace"

    def go_on() -> None:
        program.confines()
        program.ends()

    with Confining(interpreter.path, "child-tsync", FEW) as program:
        assert attached(program, folder, go_on).said == []
    parent, child = sorted(read(folder), key=lambda process: process.start)
    assert child.ppid == parent.pid
    assert (child.lost, child.note) == (0, "")
    assert head(folder, child.pid)["confined"] == 1


def test_a_filter_that_came_after_the_look_is_seen_before_anything_is_done(tmp_path: Path) -> None:
    """On all threads, so that none can be used; or on one, which would be recorded."""
    with Confining(sys.executable, "tsync", FEW) as program:
        target = refusals.check_exact(refusals.find(program.pid))
        program.confines()
        with pytest.raises(TargetError, match="has just put a seccomp filter on"), visiting(target, [], Footprint()):
            pass
        program.ends()
    with Confining(sys.executable, "prctl", FEW) as program:
        target = refusals.check_exact(refusals.find(program.pid))
        program.confines()
        with pytest.raises(TargetError, match="has just put a seccomp filter on"):
            inject(target, str(native.LIBRARY), str(tmp_path), Plan(0), Footprint())
        program.ends()
    assert list(tmp_path.iterdir()) == []


def test_filters_are_counted_from_those_that_there_were() -> None:
    with Confining(sys.executable, "prctl", FEW) as program:
        filters = Filters(Process(program.pid))
        assert not filters.grew()
        assert not filters.grew_at_some()
        program.confines()
        assert filters.grew()
        assert filters.grew_at_some()
        assert not Filters(Process(program.pid)).grew()
        program.ends()
    assert not filters.grew()

"""A program that is in the middle of loading a library goes on loading it, whoever attaches meanwhile."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from giltrace.errors import TargetError
from giltrace.launch.attach import inject
from giltrace.launch.attach.process import Blocked, Process
from giltrace.launch.attach.session import attach
from giltrace.timeline.load import load
from tests.attaching import ROOT
from tests.interpreters import Interpreter
from tests.tracing import TARGETS

pytestmark = pytest.mark.needs("cc")

_READ, _FUTEX = 0, 202


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("slow") / "slow.so"
    source = TARGETS / "slow_loader.c"
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", out, source], check=True, timeout=60)
    return out


class Loading:
    """The program, with a thread inside the loader."""

    def __init__(self, python: Path | str, place: str, library: Path) -> None:
        words = [str(python), str(TARGETS / "slow_loader.py"), place, str(library)]
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.line() == "ready"
        # Both sleep in a read: the main thread for its input, the other one in the library.
        while self.sleeping(_READ) < 2:
            time.sleep(0.001)
        self.tids = Process(self.process.pid).tids()

    def sleeping(self, number: int) -> int:
        """How many threads sleep in that system call."""
        process, found = Process(self.process.pid), 0
        for tid in process.tids():
            try:
                blocked = process.blocked(tid)
            except OSError:
                continue
            found += isinstance(blocked, Blocked) and blocked.number == number
        return found

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def say(self, word: str) -> str:
        """Say a word and return the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()
        return self.line()

    def __enter__(self) -> Loading:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate(timeout=60)


@pytest.fixture(params=["constructor", "destructor", "walk"])
def loading(interpreter: Interpreter, library: Path, request: pytest.FixtureRequest) -> Iterator[Loading]:
    with Loading(interpreter.path, request.param, library) as program:
        yield program


def test_attaching_waits_for_the_loader_and_the_program_does_not_wait_for_it(loading: Loading, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "giltrace", "attach", str(loading.process.pid), "--light", "-d", "50ms"]
    with subprocess.Popen([*words, "-o", tmp_path / "x"], cwd=ROOT, stderr=subprocess.PIPE, text=True) as started:
        while loading.sleeping(_FUTEX) == 0:
            assert started.poll() is None, started.communicate()[1]
            time.sleep(0.001)
        for _ in range(3):
            assert loading.say("go on") == "go on"
        assert loading.say("release") == "outside"
        _, said = started.communicate(timeout=60)
    assert started.returncode == 0, said
    assert load(tmp_path / "x.giltrace").violations == ()
    assert loading.say("go on") == "go on"


def test_a_library_that_never_loads_is_told_and_left_alone(
    library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Loading(sys.executable, "constructor", library) as program:
        monkeypatch.setattr(inject, "CALL_SECONDS", 0.2)
        for _ in range(3):
            with pytest.raises(TargetError, match="loading another library") as refused:
                attach(program.process.pid, tmp_path / "x.giltrace", [], depth=0, seconds=0.01)
            assert "--observe" in refused.value.remedy
            assert not (tmp_path / "x.giltrace").exists()
            assert program.say("go on") == "go on"
            # Our thread does not wait there for ever.
            assert Process(program.process.pid).tids() == program.tids
        monkeypatch.undo()
        assert program.say("release") == "outside"
        attach(program.process.pid, tmp_path / "x.giltrace", [], depth=0, seconds=0.01)
        assert program.say("go on") == "go on"

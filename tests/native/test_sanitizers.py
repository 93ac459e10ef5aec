"""The tracer under gcc's sanitizers: in a host that they see all of, and in Python, where they see the tracer only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from giltrace.metrics.page import Pages
from giltrace.native import Mode
from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from giltrace.timeline.model import LockKind
from tests.interpreters import Interpreter, one_per_minor
from tests.sanitizers import KINDS, Build
from tests.tracing import TARGETS, WORKLOADS, of_kind, overlaps, read
from tests.unit.gil_events import timeline

pytestmark = pytest.mark.needs("sanitizers")

ROUNDS = 120
FORK_EVERY = 4
#: A storm of threads, forks and recordings, in which each finds the others in the middle of something.
CYCLES = {"cycles.py": ("40", "call"), "fork_cycles.py": ("40",), "lock_cycles.py": ("30",)}

#: The oldest and the newest whose frames are walked by different code.
PYTHONS = [i for i in one_per_minor() if i.version[:2] in ((3, 8), (3, 13)) and not i.free_threaded]


@pytest.fixture(scope="module", params=KINDS)
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Build:
    made = Build(request.param, tmp_path_factory.mktemp(request.param))
    made.compile()
    return made


@pytest.fixture(params=PYTHONS, ids=[i.id for i in PYTHONS])
def python(request: pytest.FixtureRequest) -> Interpreter:
    chosen: Interpreter = request.param
    return chosen


def test_recordings_begin_and_end_in_a_host_that_forks(build: Build, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    build.run([build.host, build.library, folder, str(ROUNDS), str(FORK_EVERY)], tmp_path)
    kinds = np.zeros(len(LockKind), np.int64)
    for number in range(ROUNDS):
        mode = Mode(number % len(Mode))
        assert len(list((folder / str(number)).glob("count-*.bin"))) == (mode != Mode.NOTHING)
        if mode != Mode.NOTHING:
            (page,) = Pages(folder / str(number)).read()
            assert page.lost == 0
            assert page.counts.holds > 0
            assert page.counts.blocks > 0
            assert sum(page.counts.hold_lengths) == page.counts.holds
        if mode == Mode.ONLY:
            continue
        (process,) = read(folder / str(number))
        assert process.note == ""
        assert process.lost == 0
        assert len(of_kind(process.events, layout.Kind.ACQUIRE)) > 0
        assert len(of_kind(process.events, layout.Kind.SLEPT)) > 0
        assert set(of_kind(process.events, layout.Kind.AWOKE)["arg"].tolist()) <= {*layout.Outcome} - {
            layout.Outcome.FAILED
        }
        (built,) = timeline([process]).processes
        assert built.violations == ()
        kinds += np.bincount(built.locks["kind"][built.blocks["lock"]], minlength=len(kinds))
    assert (kinds[[LockKind.SEMAPHORE, LockKind.PARKED, LockKind.EVENT]] > 20).all()
    # A thread that somebody stopped amid waking, half out of the list of those that are parked.
    assert kinds[LockKind.RAW] <= kinds.sum() // 200
    assert len(list(folder.glob("*/gil-*.bin"))) == ROUNDS


@pytest.mark.parametrize("workload", ["convoy", "fork_pool"])
def test_python_under_the_tracer(build: Build, python: Interpreter, workload: str, tmp_path: Path) -> None:
    folder = tmp_path / "recording"
    folder.mkdir()
    append_pair(folder)
    command = [python.path, WORKLOADS / f"{workload}.py"]
    build.run(command, tmp_path, (build.library,), GILTRACE_OUT=str(folder), GILTRACE_STACKS="128")
    processes = read(folder)
    assert len(processes) == (1 if workload == "convoy" else 3)
    for process in processes:
        assert process.lost == 0
        assert overlaps(process.events) == 0


@pytest.mark.parametrize("program", CYCLES)
def test_recordings_begin_and_end_in_python(build: Build, python: Interpreter, program: str, tmp_path: Path) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    words: list[str | Path] = [python.path, "-W", "ignore", TARGETS / program, build.library, folder, *CYCLES[program]]
    build.run(words, tmp_path)
    assert len(list(folder.glob("[0-9]*"))) >= 10

"""Hosts in which a careless walk of stacks would fault, or tell of another function: they live, and stacks are true."""

from __future__ import annotations

import resource
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from giltrace.recording import layout
from giltrace.recording.clock_file import append_pair
from giltrace.recording.events import Array, ProcessEvents
from tests.interpreters import Interpreter
from tests.tracing import TARGETS, of_kind, read, traced_environment

HOSTS = TARGETS / "hosts"


def run(
    interpreter: Interpreter, folder: Path, *words: str | Path, before: Callable[[], None] | None = None
) -> tuple[str, ProcessEvents]:
    """Run a program with full stacks; returns what it printed, and what was recorded."""
    append_pair(folder)
    env = traced_environment(folder) | {"GILTRACE_STACKS": "128"}
    command = [interpreter.path, "-W", "ignore", *words]
    ran = subprocess.run(command, env=env, preexec_fn=before, capture_output=True, text=True, timeout=120, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    (process,) = read(folder)
    return ran.stdout, process


def innermost(process: ProcessEvents, events: Array) -> list[str]:
    """The function that each event's stack begins with, "" where it has none."""
    table = process.stacks
    assert table is not None
    tops = [table.frames[table.offsets[at]]["function"] if at >= 0 else -1 for at in events["stack"]]
    return [table.strings[top].rpartition(".")[2] if top >= 0 else "" for top in tops]


def releases(process: ProcessEvents) -> Array:
    return of_kind(process.events, layout.Kind.RELEASE)


@pytest.fixture(scope="module")
def states(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("states") / "states.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, HOSTS / "states.c"], check=True, timeout=60)
    return library


def test_stacks_inside_sub_interpreters_are_theirs(interpreter: Interpreter, tmp_path: Path) -> None:
    _, process = run(interpreter, tmp_path, HOSTS / "subinterpreters.py")
    found = Counter(innermost(process, releases(process)))
    if interpreter.free_threaded:
        pytest.skip("no stacks without a GIL")
    assert (found["inside"], found["outside"]) == (300, 600)


def test_a_state_that_another_thread_deleted_is_left_alone(
    interpreter: Interpreter, tmp_path: Path, states: Path
) -> None:
    inside = "def inside():\n import time\n for _ in range(50): time.sleep(0)\ninside()"
    program = f"import ctypes\nctypes.PyDLL({str(states)!r}).dangle({inside.encode()!r})\n{inside}\nprint('alive')"
    output, process = run(interpreter, tmp_path, "-c", program)
    assert output == "alive\n"
    if not interpreter.free_threaded:
        assert Counter(innermost(process, releases(process)))["inside"] == 200


def test_a_thread_started_while_no_state_is_current(interpreter: Interpreter, tmp_path: Path, states: Path) -> None:
    program = f"import ctypes\nctypes.PyDLL({str(states)!r}).start_without_state()\nprint('alive')"
    assert run(interpreter, tmp_path, "-c", program)[0] == "alive\n"


def test_code_that_is_compiled_again_and_freed_is_never_taken_for_another(
    interpreter: Interpreter, tmp_path: Path
) -> None:
    output, process = run(interpreter, tmp_path, HOSTS / "recompiled.py")
    own = releases(process)
    own = own[own["thread"] == 0]
    names = np.array(innermost(process, own))
    rows = [line.split() for line in output.splitlines()]
    for before, after, function in rows:
        begin, end = np.searchsorted(own["time"], [int(before), int(after)])
        assert set(names[begin:end]) <= {function, "made"}
        assert function in names[begin:end]
    assert len(rows) == 1500


def test_a_program_that_executes_the_same_source_writes_its_stack_once(
    interpreter: Interpreter, tmp_path: Path
) -> None:
    program = "import time\nfor _ in range(5000): exec(compile('time.sleep(0)', '<again>', 'exec'))"
    _, process = run(interpreter, tmp_path, "-c", program)
    table = process.stacks
    assert table is not None
    again = table.strings.index("<again>")
    tops = table.frames[table.offsets[:-1]]["file"]
    assert np.flatnonzero(tops == again).size <= 3  # the interpreter may specialise an instruction
    stacks = releases(process)["stack"]
    assert np.count_nonzero(tops[stacks[stacks >= 0]] == again) == 5000
    assert sum(path.stat().st_size for path in tmp_path.glob("stacks-*")) <= 1 << 20


def test_a_moment_without_descriptors_costs_the_stacks_of_that_moment_only(
    interpreter: Interpreter, tmp_path: Path
) -> None:
    output, process = run(interpreter, tmp_path, HOSTS / "exhausted.py")
    own = releases(process)
    start, empty, again, end = map(int, output.split())
    table = process.stacks
    assert table is not None

    def known(kind: str, begin: int, until: int) -> int:
        stacks = own["stack"][(own["time"] > begin) & (own["time"] < until)]
        files = table.frames[table.offsets[stacks[stacks >= 0]]]["file"]
        return sum(table.strings[file].startswith(kind) for file in files)

    assert known("before", start, empty) == 10
    assert known("after", again, end) == 10
    lost = 150 - known("while", empty, again)
    assert 0 < lost == process.lost_stacks
    assert lost < 150


def test_a_limit_on_the_size_of_files_costs_stacks_and_not_the_program(
    interpreter: Interpreter, tmp_path: Path
) -> None:
    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, resource.RLIM_INFINITY))

    program = """
import time
for i in range(100):
    exec(compile("time.sleep(0)", "file%d" % i + "x" * 3000, "exec"))
print("alive")
"""
    output, process = run(interpreter, tmp_path, "-c", program, before=limit)
    assert output == "alive\n"
    assert process.lost_stacks > 0
    assert all(path.stat().st_size <= 150_000 for path in tmp_path.glob("stacks-*"))

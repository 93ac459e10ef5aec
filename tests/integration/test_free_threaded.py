"""Builds without a GIL, which run as they do bare: also where the GIL is on from the start, or comes on later."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from giltrace.analysis.findings.costs import Costed
from giltrace.recording import layout
from giltrace.timeline.load import load
from tests.interpreters import Interpreter, interpreters
from tests.tracing import TARGETS, of_kind, read

pytestmark = pytest.mark.needs("free-threaded", "cc")

GILTRACE = (sys.executable, "-m", "giltrace")
#: How the GIL comes on: not at all, by the environment, by a module that wants it.
WAYS = {"off": ({}, ()), "on": ({"PYTHON_GIL": "1"}, ()), "module": ({}, ("gil_wanted",))}


@pytest.fixture
def python() -> Interpreter:
    return next(i for i in interpreters() if i.free_threaded)


def built_module(python: Interpreter, folder: Path) -> Path:
    ask = "import sysconfig; print(sysconfig.get_path('include'))"
    headers = subprocess.run([python.path, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
    source, out = TARGETS / "gil_wanted.c", folder / "gil_wanted.so"
    subprocess.run(["cc", "-shared", "-fPIC", f"-I{headers}", source, "-o", out], check=True, timeout=60)
    return folder


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("options", [("--light",), (), ("--spans",)], ids=["light", "default", "spans"])
def test_it_runs_as_bare(python: Interpreter, way: str, options: tuple[str, ...], tmp_path: Path) -> None:
    variables, modules = WAYS[way]
    environment = os.environ | variables | {"PYTHONPATH": str(built_module(python, tmp_path))}
    command: list[str | Path] = [python.path, "-W", "ignore", TARGETS / "free_threads.py", *modules]
    bare = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert bare.stdout.endswith(f"{way != 'off'}\n")
    folder = tmp_path / "x.giltrace"
    recorded = [*GILTRACE, "record", *options, "-o", folder, "--", *command]
    traced = subprocess.run(recorded, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (traced.returncode, traced.stdout) == (0, bare.stdout), traced.stderr
    assert traced.stderr.startswith(bare.stderr + "process ")
    processes = read(folder)
    assert all(process.lost == 0 for process in processes)
    assert not load(folder).violations
    # Importing an extension module takes the GIL for that long, also where it stays off.
    acquires = sum(len(of_kind(process.events, layout.Kind.ACQUIRE)) for process in processes)
    assert acquires > 0 or way == "off"


def test_the_locks_of_objects_are_told_by_their_types(python: Interpreter, tmp_path: Path) -> None:
    folder = tmp_path / "x.giltrace"
    command = [*GILTRACE, "record", "--light", "--no-trace", "-o", str(folder), "--", str(python.path)]
    program = str(TARGETS / "shared_objects.py")
    subprocess.run([*command, program], capture_output=True, text=True, timeout=100, check=True)
    (process,) = load(folder).processes
    assert process.violations == ()
    named = set(process.lock_types) - {""}
    assert "dict" in named
    assert named <= {"dict", "Counter", "list", "set", "collections.deque", "Barrier", "Condition", "Thread", "Event"}
    blame = Costed(process).lock_blame
    row = next(row for row in blame if row.objects)
    assert row.cause == "object-lock"
    assert row.victim.own_file.endswith("shared_objects.py")


_STARTS = """
import threading
gate = threading.Lock()
gate.acquire()
def wait():
    with gate: pass
threads = [threading.Thread(target=wait, name=f"waiter-{number}") for number in range(100)]
for one in threads: one.start()
gate.release()
for one in threads: one.join()
"""


def test_threads_that_begin_at_once_have_their_names(python: Interpreter, tmp_path: Path) -> None:
    """Without a GIL a thread may be at work before the one that starts it has come back from pthread_create."""
    folder = tmp_path / "x.giltrace"
    command = [*GILTRACE, "record", "--light", "--no-trace", "-o", str(folder), "--", str(python.path), "-c", _STARTS]
    subprocess.run(command, capture_output=True, text=True, timeout=100, check=True)
    (process,) = load(folder).processes
    waited = {process.threads[thread].name for thread in process.blocks["thread"].tolist()}
    assert len(waited) > 10
    assert waited <= {"MainThread", *(f"waiter-{number}" for number in range(100))}

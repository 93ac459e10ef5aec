"""What is imported when: little before the target starts, and nothing more once it has ended."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from giltrace.cli import starting
from giltrace.cli.app import COMMANDS
from giltrace.launch.beside import taken_beside
from giltrace.process.cores import Allowed, allowed

#: What takes long to import.
HEAVY = {"numpy", "perfetto", "google", "rich", "pydantic", "viztracer", "wasmtime", "pygments", "click", "logging"}
#: What no recording under `--light` needs: of other packages, and what is found for a report, of tasks or of a fleet.
NEEDLESS = {
    *("perfetto", "pydantic", "viztracer", "wasmtime", "pygments", "click", "logging", "hashlib", "concurrent.futures"),
    *(f"giltrace.analysis.{name}" for name in ("results", "task_results", "fleet", "report")),
    *(f"giltrace.collectors.{name}" for name in ("pyspy", "viztracer")),
}
#: So many modules of giltrace are imported when the target starts, and with its trace at the end.
MOST_AT_START, MOST_AT_END = 55, 221
#: And so many modules of Python's own: little more than Typer and numpy need.
MOST_OF_PYTHON_AT_START, MOST_OF_PYTHON_AT_END = 150, 175
#: So many data classes are defined for all that: each takes as long as the import of a few modules, a tuple a fifth.
MOST_DATA_CLASSES = 40
DATA_CLASSES = """
import dataclasses, importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
ours = [vars(module) for name, module in list(sys.modules.items()) if name.startswith("giltrace")]
print(len({one for names in ours for one in names.values() if isinstance(one, type) and dataclasses.is_dataclass(one)}))
"""
LOOKS = [["--help"], ["--version"], ["workloads"], *([command.name, "--help"] for command in COMMANDS)]

NAMES = "print('imported', *sorted(sys.modules), file=sys.stderr, flush=True)"
SHOWN = f"""
import atexit, sys
atexit.register(lambda: {NAMES})
sys.argv[1:] = {{words!r}}
from giltrace.cli.app import main
main()
"""
#: Says what is imported when the target is let go, and again once it has ended and is seen to have.
RECORDED = f"""
import sys
from giltrace.launch.child import Child
from giltrace.launch import recorder
release, begin = Child.release, recorder.taken_beside
def told(self):
    {NAMES}
    release(self)
Child.release = told
def ended():
    {NAMES}
class Steps:
    def __init__(self, steps): self.steps = steps
    def __iter__(self):
        yield from self.steps
        print("READY", file=sys.stderr, flush=True)
recorder.taken_beside = lambda steps: begin(Steps(steps))
import atexit
from giltrace.launch.recorder import Crew
stop = Crew.stop
def stopped(self):
    ended()
    stop(self)
Crew.stop = stopped
atexit.register(ended)
sys.argv[1:] = {{words!r}}
from giltrace.cli.app import main
main()
"""


def imported(stderr: str) -> list[set[str]]:
    return [set(line.split()[1:]) for line in stderr.splitlines() if line.startswith("imported ")]


def tops(modules: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in modules}


@pytest.mark.parametrize("words", LOOKS, ids=" ".join)
def test_a_look_at_giltrace_imports_nothing_heavy(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHOWN.format(words=words)], capture_output=True, text=True, timeout=60, check=True
    )
    (modules,) = imported(done.stderr)
    assert "giltrace.cli.app" in modules
    assert not tops(modules) & HEAVY


def recorded(folder: Path, *options: str) -> tuple[str, list[set[str]]]:
    """Record a program that ends once all is imported; what it printed, and what was imported at three moments."""
    code = "import os, sys; sys.stdin.read(); print(os.environ.get('OPENBLAS_NUM_THREADS'))"
    words = ["record", *options, "-o", str(folder / "it"), "-c", code]
    env = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    with subprocess.Popen(
        [sys.executable, "-c", RECORDED.format(words=words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=env,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        before = ""
        for line in process.stderr:
            before += line
            if line == "READY\n":
                break
        process.stdin.close()
        rest = process.stderr.read()
        printed = process.stdout.read()
    assert process.returncode == 0, before + rest
    return printed.strip(), imported(before + rest)


def has_a_core_to_spare() -> bool:
    here = allowed(os.getpid())
    return min(here.cpus, here.quota or here.cpus) >= 2


@pytest.mark.parametrize("options", [["--light"], ["--light", "--no-trace"], []], ids=" ".join)
def test_the_target_waits_for_no_import_and_its_end_for_none(options: list[str], tmp_path: Path) -> None:
    printed, (at_start, at_end, in_all) = recorded(tmp_path, *options)
    assert printed == "None"
    assert not tops(at_start) & HEAVY - {"logging"}
    assert "numpy" in in_all
    assert ("google" in tops(in_all)) == ("--no-trace" not in options)
    if has_a_core_to_spare() and options:
        late = {name for name in in_all - at_end if name.partition(".")[0] in (HEAVY | {"giltrace"})}
        # Rich reads tables of its own when it prints.
        assert {name for name in late if not name.startswith("rich._")} == set()


def test_no_more_is_imported_than_a_small_recording_needs(tmp_path: Path) -> None:
    _, (at_start, _, in_all) = recorded(tmp_path, "--light")
    assert in_all & NEEDLESS == set()
    for modules, most, most_of_python in (
        (at_start, MOST_AT_START, MOST_OF_PYTHON_AT_START),
        (in_all, MOST_AT_END, MOST_OF_PYTHON_AT_END),
    ):
        assert len({name for name in modules if name.startswith("giltrace")}) <= most
        assert len({name for name in modules if name.partition(".")[0] in sys.stdlib_module_names}) <= most_of_python


def test_few_data_classes_are_defined_for_it() -> None:
    words = [sys.executable, "-c", DATA_CLASSES, "giltrace.cli.record", *starting._END, starting._TRACE]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert 0 < int(done.stdout) <= MOST_DATA_CLASSES


@pytest.mark.parametrize("cores", [Allowed(1, None), Allowed(8, 1.5)], ids=["one", "a quota"])
def test_with_no_core_to_spare_all_is_the_targets(cores: Allowed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "allowed", lambda pid: cores)
    assert list(starting.ends(no_trace=False)) == []


def test_all_that_is_imported_beside_is_there() -> None:
    assert list(starting.ends(no_trace=True)) == ["numpy", *starting._END][: None if has_a_core_to_spare() else 0]


def test_steps_are_taken_beside_and_none_begun_once_it_is_over() -> None:
    taken, begun, go_on = list[int](), threading.Event(), threading.Event()

    def steps() -> Iterator[None]:
        for number in range(3):
            taken.append(number)
            begun.set()
            go_on.wait(30)
            yield

    usual = sys.getswitchinterval()
    with taken_beside(steps()):
        assert begun.wait(30)
        threading.Timer(0, go_on.set).start()
        assert 0 in taken
    over = list(taken)
    assert taken == over
    assert sys.getswitchinterval() == usual
    assert [one for one in threading.enumerate() if one.name == "giltrace-beside"] == []


def test_a_step_that_fails_is_told_where_it_is_needed(capsys: pytest.CaptureFixture[str]) -> None:
    def steps() -> Iterator[None]:
        yield
        raise ImportError("not here")

    with taken_beside(steps()):
        pass
    assert capsys.readouterr().err == ""

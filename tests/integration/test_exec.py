"""A Python that executes something else ends there, however it does it: in the recording and in the live view."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from giltrace.recording.live import LiveReader
from giltrace.timeline.load import load
from giltrace.timeline.model import Process, Timeline
from tests.tracing import TARGETS, traced_environment

pytestmark = pytest.mark.needs("cc")

EXECUTES = TARGETS / "executes.py"
OF_ITSELF = ("here", "elsewhere")
OF_A_FORK = ("fork", "preexec")
OF_NEITHER = ("spawn", "subprocess")


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("executed")
    found = {"dynamic": folder / "dynamic", "static": folder / "static"}
    for kind, path in found.items():
        flags = ["-static"] if kind == "static" else []
        subprocess.run(["cc", "-O1", *flags, "-o", path, TARGETS / "executed.c"], check=True)
    return found


def record(folder: Path, way: str, *argv: str | Path, without: tuple[str, ...] = ()) -> tuple[Timeline, int, int, int]:
    """The timeline, which process executed the program, when it set out to, and when the program ran."""
    options = [word for name in without for word in ("--without", name)]
    command = [sys.executable, "-m", "giltrace", "record", "--light", *options, "-o", str(folder)]
    ran = subprocess.run(
        [*command, "--", sys.executable, EXECUTES, way, *argv],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    pid, before, after = map(int, " ".join(ran.stdout.splitlines()[:2]).split())
    return load(folder.with_name(folder.name + ".giltrace")), pid, before, after


def whole(process: Process) -> Iterator[tuple[int, int]]:
    """From when to when each thing lasted that a process did."""
    yield process.start, process.end
    for table in (process.holds, process.waits, process.runs, process.states):
        yield from zip(table["start"].tolist(), table["end"].tolist(), strict=True)
    yield from ((thread.start, thread.end) for thread in process.threads)


@pytest.mark.on_some
@pytest.mark.needs("perf")
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("way", [*OF_ITSELF, *OF_A_FORK])
def test_python_ends_where_its_process_executes(tmp_path: Path, programs: dict[str, Path], way: str, kind: str) -> None:
    timeline, pid, before, after = record(tmp_path / "x", way, programs[kind])
    assert timeline.violations == ()
    (process,) = (one for one in timeline.processes if one.pid == pid)
    assert before <= process.end <= after
    assert process.became == kind
    assert all(end <= process.end for _, end in whole(process))
    if way in OF_A_FORK:
        (parent,) = (one for one in timeline.processes if one.pid != pid)
        assert parent.end > after
        assert parent.became == ""


@pytest.mark.on_some
@pytest.mark.parametrize("kind", ["dynamic", "static"])
@pytest.mark.parametrize("way", [*OF_ITSELF, *OF_A_FORK])
def test_python_ends_no_later_where_the_kernel_was_not_asked(
    tmp_path: Path, programs: dict[str, Path], way: str, kind: str
) -> None:
    timeline, pid, _, after = record(tmp_path / "x", way, programs[kind], without=("sched",))
    assert timeline.violations == ()
    (process,) = (one for one in timeline.processes if one.pid == pid)
    assert all(end <= after for _, end in whole(process))


@pytest.mark.needs("perf")
@pytest.mark.parametrize("way", OF_NEITHER)
def test_what_never_was_python_is_no_process(tmp_path: Path, programs: dict[str, Path], way: str) -> None:
    timeline, pid, _, after = record(tmp_path / "x", way, programs["dynamic"])
    (process,) = timeline.processes
    assert process.pid == pid
    assert process.became == ""
    assert process.end > after


@pytest.mark.needs("perf")
@pytest.mark.parametrize("way", OF_ITSELF)
@pytest.mark.parametrize("between", ["", "sh"])
def test_another_python_begins_where_it_does(tmp_path: Path, way: str, between: str) -> None:
    code = "import time; print(time.monotonic_ns())"
    shell = ["/bin/sh", "-c", f'exec "{sys.executable}" -c "{code}"']
    argv = shell if between else [sys.executable, "-c", code]
    timeline, pid, before, after = record(tmp_path / "x", way, *argv)
    assert timeline.violations == ()
    first, second = (one for one in timeline.processes if one.pid == pid)
    assert before <= first.end <= second.start <= after < second.end
    assert first.became == between
    assert second.became == ""
    assert len(second.threads) == 1


@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_the_live_view_sees_that_a_process_executed(tmp_path: Path, programs: dict[str, Path], kind: str) -> None:
    pipe = subprocess.PIPE
    argv = [sys.executable, str(EXECUTES), "fork", str(programs[kind])]
    with subprocess.Popen(argv, env=traced_environment(tmp_path), stdin=pipe, stdout=pipe, text=True) as target:
        assert target.stdout is not None
        pid = int(target.stdout.readline().split()[0])
        target.stdout.readline()
        reader = LiveReader(tmp_path)
        (ended,) = (update.ended for update in reader.poll(time.monotonic_ns()) if update.file.pid == pid)
        # What is preloaded says so, or else only who has looked before knows what the process executed then.
        assert ended
        assert pid not in {update.file.pid for update in reader.poll(time.monotonic_ns())}
        reader.close()
        target.communicate(timeout=60)

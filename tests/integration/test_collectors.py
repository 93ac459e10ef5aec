"""The registry of collectors, and the collector of context switches on real programs."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from giltrace.collectors import LIGHT, NAMES, _perf, choose
from giltrace.collectors.sched import SchedCollector
from giltrace.errors import UsageError
from giltrace.recording.native_code import read_native_code
from giltrace.recording.sched import read_sched
from tests.collecting import record, script

needs_perf = pytest.mark.skipif(_perf.why_not() is not None, reason=f"needs perf: {_perf.why_not()}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "x.giltrace"
    path.mkdir()
    return path


# The registry


def test_every_collector_can_be_left_out() -> None:
    assert [collector.name for collector in choose(NAMES)] == list(NAMES)
    assert [collector.name for collector in choose(NAMES, without=["gil", "viztracer"])] == ["sched", "py-spy"]
    assert [collector.name for collector in choose(LIGHT, also=["viztracer"], without=["sched"])] == [
        "gil",
        "viztracer",
    ]
    with pytest.raises(UsageError, match="nobody"):
        choose(NAMES, without=["nobody"])
    with pytest.raises(UsageError, match="sched is asked for and left out"):
        choose(LIGHT, also=["sched"], without=["sched"])


def test_the_registry_does_not_import_the_collectors() -> None:
    code = "import sys, giltrace.collectors; print([m for m in sys.modules if m.startswith(('numpy', 'giltrace.'))])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['giltrace.collectors']"


# sched

THREADS_AND_CHILDREN = """
import os, sys, threading
ids = []
def note():
    ids.append((os.getpid(), threading.get_native_id()))
threads = [threading.Thread(target=note) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
note()
if (pid := os.fork()) == 0:
    if os.fork() == 0:
        os._exit(0)
    os.wait()
    os.execv("/bin/true", ["true"])
os.waitpid(pid, 0)
ids.append((pid, pid))
print(*("%d:%d" % pair for pair in ids), file=open(sys.argv[1], "w"))
"""


@needs_perf
def test_sched_sees_all_threads_and_descendants(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "ids"
    argv = [sys.executable, script(tmp_path, THREADS_AND_CHILDREN), out]
    status, (report,) = record(folder, [SchedCollector()], argv)
    expected = {tuple(map(int, pair.split(":"))) for pair in out.read_text().split()}
    events = read_sched(folder)
    assert (status, report.status, report.lost, events.lost) == (0, "ok", 0, 0)
    seen = set(zip(events.switches["pid"].tolist(), events.switches["tid"].tolist(), strict=True))
    assert len(expected) == 5
    assert expected < seen
    assert len({pid for pid, _ in seen}) == 3
    child = next(pid for pid, tid in expected if events.names[tid] == "true")
    assert events.tasks["born"][events.tasks["tid"] == child].tolist() == [1, 0]
    for tid in np.unique(events.switches["tid"]):
        on = events.switches["on"][events.switches["tid"] == tid]
        assert (on[:-1] != on[1:]).all()
        assert on[-1] == 0


PING_PONG = """
import os, threading
(a, b), (c, d) = os.pipe(), os.pipe()
def answer():
    while os.read(a, 1) == b"x":
        os.write(d, b"x")
thread = threading.Thread(target=answer)
thread.start()
for _ in range(40_000):
    os.write(b, b"x")
    os.read(c, 1)
os.write(b, b"-")
thread.join()
"""


@needs_perf
def test_sched_loses_nothing_to_fast_switches(folder: Path) -> None:
    _, (report,) = record(folder, [SchedCollector()], [sys.executable, "-c", PING_PONG])
    events = read_sched(folder)
    assert (report.status, report.lost) == ("ok", 0)
    assert len(events.switches) > 100_000


def as_nobody(work: Callable[[], str]) -> str:
    """Run `work` in a child process that has given up root, and return its result."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            # Changing the user made this process unreadable to others; a process that a user starts is not.
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
            os.write(theirs, work().encode())
        os._exit(0)
    os.close(theirs)
    with open(ours) as file:
        result = file.read()
    os.waitpid(pid, 0)
    return result


@pytest.fixture
def open_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        yield Path(name)


@needs_perf
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become somebody else")
@pytest.mark.skipif(int(_perf._PARANOID.read_text()) > 2, reason="needs kernel.perf_event_paranoid <= 2")
def test_sched_needs_no_privileges(open_folder: Path) -> None:
    import giltrace.collectors._code_names
    import giltrace.recording.sched  # noqa: F401 - nobody may not be able to import them later

    def work() -> str:
        collector = SchedCollector()
        assert collector.available(None) is None
        _, (report,) = record(open_folder, [collector], ["/bin/sh", "-c", "/bin/true; seq 3000000 >/dev/null; exit"])
        return json.dumps([report.status, sorted(read_sched(open_folder).names.values())])

    assert json.loads(as_nobody(work)) == ["ok", ["seq", "sh", "true"]]
    assert any(one.file.startswith("/") for one in read_native_code(open_folder).functions)


def test_sched_that_is_refused_says_so_and_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **more: object) -> int:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(_perf, "open_switches", refuse)
    status, (report,) = record(folder, [SchedCollector()], ["/bin/true"])
    assert status == 0
    assert "perf_event" in report.status
    assert list(folder.iterdir()) == []

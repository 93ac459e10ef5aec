"""`giltrace dask`: on hosts with clocks of their own, until Ctrl-C, and where something is missing."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import giltrace
from giltrace.recording.fleet import read_fleet
from tests.dask_clusters import (
    command,
    environment,
    network,
    recording,
    served,
    started,
    until,
    wait_for,
    working,
)
from tests.fleets import TARGETS

pytestmark = [pytest.mark.needs("distributed"), pytest.mark.timeout(300)]


@pytest.mark.needs("network namespaces")
def test_hosts_with_clocks_of_their_own(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        address, hosts = stack.enter_context(network(tmp_path))
        scheduler = stack.enter_context(served(tmp_path, address))
        for number, host in enumerate(hosts, 1):
            stack.enter_context(working(scheduler, tmp_path, f"w{number}", host.prefix))
        words = [str(TARGETS / "dask_load.py"), scheduler, "2", str(tmp_path / "loads")]
        load = stack.enter_context(started(words, tmp_path, "load.log"))
        while not (tmp_path / "loads").exists():
            assert load.poll() is None, (tmp_path / "load.log").read_text()
            time.sleep(0.05)
        told = command("dask", scheduler, "-d", "2s", "-o", "net", folder=tmp_path)
        assert told.returncode == 0, told.stderr
    fleet = read_fleet(tmp_path / "net.giltrace")
    assert [(part.host, part.worker) for part in fleet.parts] == [("host-1", "w1"), ("host-2", "w2")]
    for part, host in zip(fleet.parts, hosts, strict=True):
        assert abs(part.offset_ns + host.ahead_ns) <= part.error_ns < 1_000_000_000
    timeline = giltrace.load(tmp_path / "net").timeline
    lives = [(process.start, process.end) for process in timeline.processes]
    assert all(start < timeline.end and end > timeline.start for start, end in lives)
    assert timeline.violations == ()
    summary = giltrace.load(tmp_path / "net").report().fleet
    assert summary is not None
    assert summary.summary.startswith("Tasks 'convoy' lost ")
    assert "while tasks 'hog' held it" in summary.summary
    assert summary.summary.endswith("on 2 of 2 workers.")
    assert "Tasks 'convoy' lost " in told.stderr


BEGUN = "giltrace: recording 1 worker; Ctrl-C ends it\n"


def test_ctrl_c_ends_it_and_leaves_a_valid_recording(tmp_path: Path) -> None:
    with served(tmp_path, "127.0.0.1") as scheduler, working(scheduler, tmp_path, "w1"):
        wait_for(1, scheduler, tmp_path)
        with recording(tmp_path, "cut") as process:
            assert until(process, BEGUN) == [BEGUN]
            process.send_signal(signal.SIGINT)
            told = process.communicate()[1]
            assert process.returncode == 0, told
    assert "recording cut.giltrace" in told
    assert len(giltrace.load(tmp_path / "cut").processes) == 1
    assert list((tmp_path / "scratch").glob("giltrace-dask-*")) == []


#: Where there is no giltrace to be found.
NO_GILTRACE = """
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] == "giltrace" else super().find_spec(name, path, target)

sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""


@pytest.mark.rarely  # for a minute and a half distributed tries again to load what is not there
@pytest.mark.timeout(300)
def test_workers_without_giltrace_are_told_and_not_hindered(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "sitecustomize.py").write_text(NO_GILTRACE)
    without = ("env", f"PYTHONPATH={bare}")
    with served(tmp_path, "127.0.0.1") as scheduler, contextlib.ExitStack() as stack:
        stack.enter_context(working(scheduler, tmp_path, "w1"))
        stack.enter_context(working(scheduler, tmp_path, "bare1", without))
        wait_for(2, scheduler, tmp_path)
        process = stack.enter_context(recording(tmp_path, "some"))
        (warned, _) = until(process, BEGUN)
        assert warned.startswith("giltrace: warning: worker tcp://127.0.0.1:")
        assert warned.endswith("has no giltrace\n")
        stack.enter_context(working(scheduler, tmp_path, "bare2", without))
        wait_for(3, scheduler, tmp_path)
        process.send_signal(signal.SIGINT)
        told = process.communicate()[1]
        assert process.returncode == 0, told
        assert told.count("has no giltrace") == 3, told  # a warning of the one that joined, and remarks on both
        (tmp_path / "alone").mkdir()
        alone = stack.enter_context(served(tmp_path / "alone", "127.0.0.1"))
        stack.enter_context(working(alone, tmp_path, "bare3", without))
        wait_for(1, alone, tmp_path)
        refused = command("dask", alone, "-d", "1s", folder=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.splitlines()[1] == "  install it where the workers run: pip install giltrace"
    assert len(giltrace.load(tmp_path / "some").processes) == 1


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    told = command("dask", "tcp://127.0.0.1:1", folder=tmp_path)
    assert told.returncode == 2
    assert told.stderr.startswith("giltrace: error: no scheduler at tcp://127.0.0.1:1: ")
    assert "name what `dask scheduler` says at its start, like tcp://HOST:8786" in told.stderr
    told = command("dask", "nothing.json", folder=tmp_path)
    assert told.stderr.startswith("giltrace: error: there is no file nothing.json\n")
    with served(tmp_path, "127.0.0.1") as scheduler:
        told = command("dask", scheduler, "-d", "1s", folder=tmp_path)
    assert told.stderr == "giltrace: error: the cluster has no workers\n  start some: dask worker SCHEDULER-ADDRESS\n"
    assert list(tmp_path.glob("*.giltrace")) == []


def test_without_distributed_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "distributed.py").write_text("raise ImportError('no distributed here')")
    whole = [sys.executable, "-m", "giltrace", "dask", "tcp://127.0.0.1:1"]
    asked = {**environment(tmp_path), "PYTHONPATH": str(tmp_path)}
    told = subprocess.run(whole, env=asked, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert told.stderr.startswith("giltrace: error: Dask is not installed here: no distributed here\n")
    assert "[dask]" in told.stderr.splitlines()[1]


def test_workers_that_cannot_be_recorded_are_told_with_a_remedy() -> None:
    from giltrace.integrations.fleet import tracing

    missing = tracing._unable("tcp://a:1", ModuleNotFoundError("No module named 'giltrace'"))
    other = tracing._unable("tcp://a:1", {"giltrace": "0.0.1"})
    silent = tracing._unable("tcp://a:1", TimeoutError("it did not answer"))
    assert [error.remedy.partition(":")[0] for error in (missing, other, silent) if error] == [
        "install it where the workers run",
        "install the same there",
        "see its log, and whether it is stuck",
    ]
    assert tracing._unable("tcp://a:1", {"giltrace": giltrace.__version__}) is None

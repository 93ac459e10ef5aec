"""How much of the machine a process may use: read from outside, written whenever it changes, told to the timeline."""

from __future__ import annotations

import io
import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from giltrace.analysis.measure.limits import describe_limits
from giltrace.analysis.report import analyse
from giltrace.analysis.summary import summarise
from giltrace.process.cores import allowed, cpu_quota
from giltrace.recording.cores import ALLOWED, quota_of, read_cores
from giltrace.recording.cores_log import FILE, CoresLog
from giltrace.recording.door import Times
from giltrace.reports.summary import print_summary
from giltrace.reports.terminal import print_report
from giltrace.timeline.cores import with_cores
from giltrace.timeline.model import Cores, Process
from tests.unit.gil_events import MS, PID, Kernel, Script, process, timeline

V1 = "25 1 0:22 / {0}/v1 rw - cgroup cgroup rw,cpu,cpuacct"
V1_MEMORY = "26 1 0:23 / {0}/memory rw - cgroup cgroup rw,memory"
V2 = "27 1 0:24 / {0}/v2 rw,nosuid shared:5 - cgroup2 cgroup2 rw"
V2_BELOW = "27 1 0:24 /kube/pod {0}/v2 rw - cgroup2 cgroup2 rw"


def cgroups(folder: Path, mounts: list[str], own: str, files: dict[str, str]) -> Path:
    """A made-up /proc with process 7 in the cgroups `own`, and `files` in the mounted ones."""
    proc = folder / "proc"
    (proc / "self").mkdir(parents=True)
    (proc / "7").mkdir()
    (proc / "self/mountinfo").write_text("1 0 8:1 / / rw - ext4 /dev/sda rw\n" + "\n".join(mounts).format(folder))
    (proc / "7/cgroup").write_text(own)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return proc


@pytest.mark.parametrize(
    ("mounts", "own", "files", "quota"),
    [
        ([V2], "0::/a/b\n", {"v2/a/b/cpu.max": "50000 100000\n"}, 0.5),
        ([V2], "0::/a/b\n", {"v2/a/b/cpu.max": "max 100000\n", "v2/a/cpu.max": "150000 100000\n"}, 1.5),
        ([V2], "0::/a/b\n", {"v2/a/b/cpu.max": "300000 100000\n", "v2/cpu.max": "20000 10000\n"}, 2.0),
        ([V2], "0::/a/b\n", {"v2/a/b/cpu.max": "max 100000\n"}, None),
        ([V2], "0::/a\n", {}, None),
        # In a container that has no cgroup namespace, its own cgroup is mounted where all of them would be.
        ([V2_BELOW], "0::/kube/pod/c\n", {"v2/c/cpu.max": "max 100000", "v2/cpu.max": "10000 100000"}, 0.1),
        ([V2_BELOW], "0::/kube/other\n", {"v2/cpu.max": "10000 100000"}, None),
        ([V2], "0::/../outside\n", {"v2/cpu.max": "10000 100000"}, None),
        ([V1], "4:cpu,cpuacct:/a\n", {"v1/a/cpu.cfs_quota_us": "60000", "v1/a/cpu.cfs_period_us": "100000"}, 0.6),
        ([V1], "4:cpu,cpuacct:/a\n", {"v1/a/cpu.cfs_quota_us": "-1", "v1/a/cpu.cfs_period_us": "100000"}, None),
        ([V1], "4:cpuset:/a\n", {"v1/a/cpu.cfs_quota_us": "60000", "v1/a/cpu.cfs_period_us": "100000"}, None),
        (
            [V1_MEMORY, V1, V2],
            "5:memory:/a\n4:cpu,cpuacct:/a\n0::/a\n",
            {
                "v1/a/cpu.cfs_quota_us": "60000",
                "v1/a/cpu.cfs_period_us": "100000",
                "v2/a/cpu.max": "40000 100000",
                "memory/a/cpu.max": "1 100000",
            },
            0.4,
        ),
        ([V2], "0::/a\n", {"v2/a/cpu.max": "words without sense\n"}, None),
        ([V2], "0::/a\n", {"v2/a/cpu.max": "5 0\n"}, None),
    ],
)
def test_the_smallest_quota_of_a_cgroup_and_those_above_it(
    mounts: list[str], own: str, files: dict[str, str], quota: float | None, tmp_path: Path
) -> None:
    assert cpu_quota(7, cgroups(tmp_path, mounts, own, files)) == quota


def test_a_process_that_is_gone_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(8, cgroups(tmp_path, [V2], "", {})) is None


def test_what_this_process_may_use() -> None:
    assert allowed(os.getpid()).cpus == len(os.sched_getaffinity(0))
    with pytest.raises(OSError, match="No such process"):
        allowed(1 << 22)


def test_only_changes_are_written_from_the_look_before_on(tmp_path: Path) -> None:
    cpus = os.sched_getaffinity(0)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        log = CoresLog(tmp_path, other.pid)
        log.look(now=True)
        looked = time.monotonic_ns()
        os.sched_setaffinity(other.pid, [min(cpus)])
        log.look()  # too soon
        log.look(now=True)
        other.communicate()
    log.look(now=True)
    damage: list[str] = []
    found = read_cores(tmp_path, Times(), damage)
    # On a machine with one core nothing has changed.
    assert found["cpus"].tolist() == [len(cpus), 1][: min(len(cpus), 2)]
    assert set(found["pid"].tolist()) == {other.pid}
    assert (found["since"] <= looked).all()
    assert damage == []


def test_processes_are_found_by_their_files(tmp_path: Path) -> None:
    for name in (f"gil-{os.getppid()}-0.bin", f"gil-{1 << 22}-0.bin", "gil-x-0.bin"):
        (tmp_path / name).touch()
    CoresLog(tmp_path)
    assert read_cores(tmp_path, Times(), [])["pid"].tolist() == [os.getppid()]
    CoresLog(tmp_path, os.getpid(), alone=True)
    assert sorted(read_cores(tmp_path, Times(), [])["pid"].tolist()) == sorted([os.getppid(), os.getpid()])


def test_what_makes_no_sense_is_left_out_and_told(tmp_path: Path) -> None:
    assert len(read_cores(tmp_path, Times(), [])) == 0
    rows = [
        (9, 7, 2, 0),
        (5, 7, 2, 500),
        (5, 0, 2, 0),
        (5, 7, 0, 0),
        (-5, 7, 2, 0),
        (5, 7, 1 << 20, 0),
        (5, 7, 2, 1 << 60),
    ]
    (tmp_path / FILE).write_bytes(np.array(rows, ALLOWED).tobytes() + b"torn")
    damage: list[str] = []
    found = read_cores(tmp_path, Times(1, 100), damage)
    assert found.tolist() == [(5, 7, 2, 500), (9, 7, 2, 0)]
    assert [quota_of(row) for row in found] == [0.5, None]
    assert damage == ["cores.bin: 5 entries make no sense: left out"]
    (tmp_path / FILE).unlink()
    (tmp_path / FILE).mkdir()
    assert len(read_cores(tmp_path, Times(), damage)) == 0
    assert damage[1:] == ["cores.bin is damaged (it is no regular file): left out"]


def running(pid: int = PID, ppid: int = 1) -> Process:
    """A process that lives for 100 ms and runs for 10 ms from 40 ms on."""
    script = Script((pid,), pid).hold(40 * MS, 50 * MS, 0).acquire(99 * MS, 0).release(100 * MS, 0)
    kernel = Kernel(pid).run(40 * MS, 50 * MS, pid).run(99 * MS, 100 * MS, pid).ended(100 * MS, pid)
    return replace(process(script, kernel), ppid=ppid)


def told(*rows: tuple[int, int, int, int]) -> list[Cores | None]:
    """What a parent and its child, PID and PID + 1, had by these rows (ms)."""
    given = np.array([(since * MS, *rest) for since, *rest in rows], ALLOWED)
    return [one.cores for one in with_cores([running(), running(PID + 1, PID)], given, {})]


def test_a_process_had_what_it_had_while_it_worked() -> None:
    assert told() == [None, None]
    assert told((0, PID, 4, 0), (20, PID, 1, 0), (60, PID, 3, 0))[0] == Cores(1)
    assert told((0, PID, 4, 0), (47, PID, 1, 0))[0] == Cores(4)
    # Before the first look it was so too.
    assert told((70, PID, 2, 1500))[0] == Cores(2, 1.5)
    without_runs = replace(running(), runs=running().runs[:0])
    (found,) = with_cores([without_runs], np.array([(0, PID, 4, 0), (45 * MS, PID, 1, 0)], ALLOWED), {})
    assert found.cores == Cores(1)


def test_one_that_was_not_looked_at_had_what_its_parent_had() -> None:
    assert told((0, PID, 2, 0)) == [Cores(2), Cores(2)]
    assert told((0, PID, 2, 0), (0, PID + 1, 1, 0)) == [Cores(2), Cores(1)]
    child = running(PID + 1, ppid=5)
    (found,) = with_cores([child], np.array([(0, 4711, 2, 0)], ALLOWED), {"5": 4711})
    assert found.cores == Cores(2)


@pytest.mark.parametrize(
    ("cores", "machine", "said"),
    [
        (None, 2, ""),
        (Cores(2), 2, ""),
        (Cores(1), 2, "may use 1 of 2 cores"),
        (Cores(2, 0.5), 2, "limited to 0.5 CPUs by its container"),
        (Cores(2, 1.0), 2, "limited to 1 CPU by its container"),
        (Cores(2, 4.0), 2, ""),
        (Cores(2, 0.5), 8, "may use 2 of 8 cores, limited to 0.5 CPUs by its container"),
        (Cores(2), 0, ""),
    ],
)
def test_limits_in_words(cores: Cores | None, machine: int, said: str) -> None:
    assert describe_limits(cores, machine) == said


@pytest.mark.parametrize(("quota", "at_once"), [(None, 4), (0.5, 1), (1.0, 1), (1.5, 2), (9.0, 4)])
def test_how_many_threads_can_run_at_once(quota: float | None, at_once: int) -> None:
    assert Cores(4, quota).at_once == at_once


def test_reports_say_it_in_their_head_line_and_offer_all_cores() -> None:
    script = Script((PID, 101)).hold(0, 10 * MS, 0).hold(10 * MS, 20 * MS, 1, asked=0)
    kernel = Kernel().run(0, 10 * MS, PID).run(10 * MS, 20 * MS, 101)
    made = timeline(script, kernel)
    limited = replace(made, processes=tuple(replace(one, cores=Cores(1)) for one in made.processes))
    console = Console(width=100, record=True, file=io.StringIO())
    print_summary(summarise(limited), console)
    print_report(analyse(limited), console)
    text = console.export_text()
    assert text.count(", may use 1 of 2 cores\n") == 2
    assert "at most 1.00 x as fast on 1 core" in text
    assert "With all 2 cores: at most 1.9" in text or "With all 2 cores: at most 2.0" in text
    report = analyse(limited).processes[0]
    assert (report.cores_allowed, report.cpu_quota, report.limits) == (1, None, "may use 1 of 2 cores")
    print_report(analyse(made), console)
    text = console.export_text()
    assert "may use" not in text
    assert "With all" not in text

"""`giltrace.dask` and `giltrace dask`: clusters of this machine, and of hosts that are namespaces of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import giltrace
from giltrace.analysis.site import frame_text
from giltrace.recording.fleet import read_fleet
from giltrace.timeline.model import Timeline

pytestmark = [pytest.mark.needs("distributed"), pytest.mark.needs("pyarrow"), pytest.mark.timeout(300)]

TARGETS = Path(__file__).resolve().parents[1] / "targets"
#: The clock of thread and scheduler are read one after the other, by threads that may be waiting for a core.
NEAR_NS = 200_000_000


class Ran(NamedTuple):
    """What a way of recording printed, and the recording."""

    told: dict[str, Any]
    name: Path

    @property
    def timeline(self) -> Timeline:
        return giltrace.load(self.name).timeline


def environment(folder: Path) -> dict[str, str]:
    (folder / "scratch").mkdir(exist_ok=True)
    return {
        **os.environ,
        "PYTHONPATH": str(TARGETS),
        "DASK_TEMPORARY_DIRECTORY": str(folder / "scratch"),
        "DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "%(message)s",
    }


def ran(way: str, folder: Path) -> Ran:
    command = [sys.executable, str(TARGETS / "dask_fleet.py"), way, str(folder / "out")]
    done = subprocess.run(command, env=environment(folder), cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["left_behind"] == []
    return Ran(told, folder / "out")


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    return ran("planted", tmp_path_factory.mktemp("planted"))


def spans(timeline: Timeline) -> list[tuple[str, str, int, int, int]]:
    """The worker, key, tid, start and end of all tasks that ran on threads."""
    workers = {process.pid: process.member.address for process in timeline.processes if process.member}
    (merged,) = timeline.merged
    found = []
    for row in merged.rows:
        track = merged.tracks[row["track"]]
        if track.tid:
            name = merged.names[row["name"]]
            found.append((workers[track.pid], name, track.tid, int(row["start"]), int(row["end"])))
    return found


def test_the_report_finds_the_planted_convoy(planted: Ran) -> None:
    report = giltrace.load(planted.name).report()
    assert report.fleet is not None
    assert report.fleet.summary.startswith("Tasks 'convoy' lost ")
    assert "while tasks 'hog' held it, most at hog (dask_tasks.py:" in report.fleet.summary
    assert report.fleet.summary.endswith("on 2 of 2 workers.")
    kinds = {row.prefix: row for row in report.tasks}
    assert {name: row.tasks for name, row in kinds.items() if name} == {"convoy": 2, "hog": 2}
    assert kinds["convoy"].waited_ns > kinds["convoy"].ns // 2
    assert kinds["convoy"].waits >= 60
    first = next(row for row in report.task_blame if row.prefix == "convoy")
    assert (first.cause, first.culprit_prefix, first.processes) == ("gil", "hog", 2)
    assert first.victim.function == "convoy"
    assert {row.tasks for row in report.fleet.workers} == {2}


def test_its_tasks_are_those_of_the_task_stream(planted: Ran) -> None:
    timeline = planted.timeline
    found = {(worker, key): (tid, start, end) for worker, key, tid, start, end in spans(timeline)}
    on_threads = [row for row in planted.told["stream"] if not row[1].startswith("waits-")]
    assert {(worker, key) for worker, key, *_ in on_threads} == set(found)
    threads: dict[tuple[str, int], set[int]] = {}
    for worker, key, thread, begin, stop in on_threads:
        tid, start, end = found[worker, key]
        threads.setdefault((worker, thread), set()).add(tid)
        delay = planted.told["delays"][worker]
        for stamp, instant in ((begin, start), (stop, end)):
            assert abs((stamp - delay) * 1e9 - instant - timeline.realtime_offset) < NEAR_NS
    assert all(len(tids) == 1 for tids in threads.values())
    assert {tid for tids in threads.values() for tid in tids} <= {
        thread.tid for process in timeline.processes for thread in process.threads
    }


def test_coroutines_are_beside_the_threads(planted: Ran) -> None:
    (merged,) = planted.timeline.merged
    rows = [row for row in merged.rows if not merged.tracks[row["track"]].tid]
    assert sorted(merged.names[row["name"]].rpartition("-")[2] for row in rows) == ["0", "1", "2", "3"]
    assert all(row["end"] - row["start"] >= 10_000_000 for row in rows)


def test_the_workers_are_left_as_they_were(planted: Ran) -> None:
    assert set(planted.told["restored"].values()) == {"dict"}
    assert not any("giltrace" in name for names in planted.told["plugins"].values() for name in names)


def test_every_invariant_holds_and_nothing_is_lost(planted: Ran) -> None:
    timeline = planted.timeline
    assert timeline.violations == ()
    assert timeline.lost == 0
    assert timeline.damage == ()
    assert not timeline.unfinished


def command(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "giltrace", *words]
    return subprocess.run(whole, env=environment(folder), cwd=folder, capture_output=True, text=True, check=False)


def queried(*words: str, folder: Path) -> list[dict[str, Any]]:
    told = command("query", *words, "--json", folder=folder)
    assert told.returncode == 0, told.stderr
    rows: list[dict[str, Any]] = json.loads(told.stdout)
    return rows


def test_every_command_reads_it(planted: Ran, tmp_path: Path) -> None:
    name = str(planted.name)
    told = command("report", name, folder=tmp_path)
    assert told.stdout.startswith("2 workers on 1 host\n  Tasks 'convoy' lost ")
    assert max(map(len, told.stdout.splitlines())) <= 80
    data = json.loads(command("report", name, "--json", folder=tmp_path).stdout)
    assert data["fleet"]["summary"].startswith("Tasks 'convoy'")
    assert [row["prefix"] for row in data["tasks"] if row["prefix"]] == ["convoy", "hog"]
    page = tmp_path / "page.html"
    command("report", name, "--html", str(page), folder=tmp_path)
    assert '"prefix":"convoy"' in page.read_text()
    asked = (
        "select category, count() as n, sum(waited) as ns from gil_spans where source = 'dask' group by 1 order by 3"
    )
    rows = json.loads(command("query", name, "--json", asked, folder=tmp_path).stdout)
    kinds = {row["prefix"]: row for row in data["tasks"]}
    of_threads = [row for row in rows if row["category"] != "waits"]
    assert [(row["category"], row["n"]) for row in of_threads] == [("hog", 2), ("convoy", 2)]
    assert [row["ns"] for row in of_threads] == [kinds["hog"]["waited_ns"], kinds["convoy"]["waited_ns"]]


@pytest.mark.needs("duckdb")
def test_sql_over_the_data_set_says_the_same(planted: Ran, tmp_path: Path) -> None:
    asked = "select prefix, sum(waited)::bigint as ns, count(*) as n from tasks group by all order by ns desc"
    rows = json.loads(
        command("query", str(planted.name), "--engine", "duckdb", "--json", asked, folder=tmp_path).stdout
    )
    report = giltrace.load(planted.name).report()
    kinds = [(row.prefix, row.waited_ns, row.tasks) for row in report.tasks if row.prefix]
    assert [(row["prefix"], row["ns"], row["n"]) for row in rows] == kinds
    asked = "select sum(duration)::bigint as ns from task_blame"
    (row,) = json.loads(
        command("query", str(planted.name), "--engine", "duckdb", "--json", asked, folder=tmp_path).stdout
    )
    assert row["ns"] == sum(one.ns for process in report.processes for one in process.task_blame)


def test_locks_between_tasks_are_told(tmp_path: Path) -> None:
    report = giltrace.load(ran("locks", tmp_path).name).report()
    assert report.fleet is not None
    assert report.fleet.summary.startswith("Tasks 'blocked' lost ")
    row = next(row for row in report.task_blame if row.prefix == "blocked" and row.cause == "lock")
    assert (row.culprit_prefix, row.count, row.processes) == ("keeps", 2, 2)
    assert row.culprit is not None
    assert (row.victim.own_function, row.culprit.own_function) == ("blocked", "keeps")


def test_a_worker_that_is_killed_costs_only_itself_and_one_that_joins_is_there(tmp_path: Path) -> None:
    done = ran("killed", tmp_path)
    timeline = done.timeline
    fleet = read_fleet(done.name.with_name("out.giltrace"))
    dead = [part for part in fleet.parts if part.told]
    assert [part.pid for part in dead] == [done.told["victim"]]
    assert dead[0].told == "it ended during the recording: what is here goes up to then"
    assert {part.pid for part in fleet.parts} == {*done.told["pids"], *done.told["after"]}
    assert len(fleet.parts) == 3
    by_worker = {process.pid: 0 for process in timeline.processes}
    pids = {process.member.address: process.pid for process in timeline.processes if process.member}
    for worker, *_ in spans(timeline):
        by_worker[pids[worker]] += 1
    assert by_worker == dict.fromkeys(by_worker, 20)
    assert all(len(process.holds) for process in timeline.processes)
    assert timeline.violations == ()


def test_a_cluster_is_recorded_once_at_a_time(tmp_path: Path) -> None:
    done = ran("twice", tmp_path)
    assert "this process is traced already\n  end the other trace first" in done.told["refused"]
    assert not done.told["left"]
    assert len(done.timeline.processes) == 2


def test_the_clusters_blame_is_that_of_the_report(tmp_path: Path) -> None:
    done = ran("blames", tmp_path)
    report = giltrace.load(done.name).report()
    wanted: dict[tuple[str, ...], list[int]] = {}
    for process in report.processes:
        for row in process.blame:
            sides = [(site.thread, own(site)) for site in (row.victim, row.culprit)]
            sums = wanted.setdefault((*sides[0], *sides[1]), [0, 0])
            sums[0], sums[1] = sums[0] + row.ns, max(sums[1], row.max_ns)
    columns = done.told["columns"]
    assert columns == ["victim", "victim_own_line", "culprit", "culprit_own_line", "waits", "duration", "max_duration"]
    assert {tuple(row[:4]): [row[5], row[6]] for row in done.told["rows"]} == wanted
    durations = [row[5] for row in done.told["rows"]]
    assert durations == sorted(durations, reverse=True)
    assert sum(row[2] for row in done.told["lines"]) == sum(durations)


def own(site: Any) -> str:
    """A line as tables have it."""
    frame = (site.own_function, site.own_file, site.own_line)
    return frame_text(frame if site.own_function else (site.function, site.file, site.line))


class Host(NamedTuple):
    """A host that is a namespace: how commands are run there, and how far its clock is ahead of this machine's."""

    prefix: tuple[str, ...]
    ahead_ns: int


@contextlib.contextmanager
def started(
    words: Sequence[str], folder: Path, log: str, prefix: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended with the block, and those that it has started."""
    with (folder / log).open("w") as file:
        process = subprocess.Popen(
            [*prefix, sys.executable, *words], env=environment(folder), cwd=folder, stdout=file, stderr=file, text=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def network(folder: Path) -> Iterator[tuple[str, list[Host]]]:
    """Two hosts and the address of this machine as they see it."""
    tag = f"gt{os.getpid() % 100_000}"
    net = f"10.{100 + os.getpid() % 100}.{os.getpid() // 100 % 250}"
    done: list[str] = []

    def ip(words: str, undo: str = "") -> None:
        subprocess.run(["ip", *words.split()], check=True, capture_output=True)
        done.append(undo)

    hosts = []
    try:
        ip(f"link add {tag}br type bridge", f"link del {tag}br")
        ip(f"addr add {net}.1/24 dev {tag}br")
        ip(f"link set {tag}br up")
        for number in (1, 2):
            name = f"{tag}n{number}"
            ip(f"netns add {name}", f"netns del {name}")
            ip(f"link add {tag}v{number} type veth peer name eth0 netns {name}", f"link del {tag}v{number}")
            ip(f"link set {tag}v{number} master {tag}br up")
            ip(f"-n {name} addr add {net}.{number + 1}/24 dev eth0")
            for device in ("eth0", "lo"):
                ip(f"-n {name} link set {device} up")
            ahead = 1_000 * number
            unshared = f"unshare --uts --time --monotonic {ahead} --boottime {ahead} --fork --kill-child"
            named = f'hostname host-{number}; exec "$@"'
            prefix = ("ip", "netns", "exec", name, *unshared.split(), "sh", "-c", named, "sh")
            hosts.append(Host(prefix, ahead * 10**9))
        yield f"{net}.1", hosts
    finally:
        for undo in reversed(done):
            if undo:
                subprocess.run(["ip", *undo.split()], check=False, capture_output=True)


@contextlib.contextmanager
def served(folder: Path, host: str) -> Iterator[str]:
    """A scheduler; its address."""
    words = ["-m", "dask", "scheduler", "--host", host, "--port", "0", "--no-dashboard", "--scheduler-file", "s.json"]
    with started(words, folder, "scheduler.log") as process:
        path = folder / "s.json"
        while not (path.exists() and path.read_text().endswith("}")):
            assert process.poll() is None, (folder / "scheduler.log").read_text()
            time.sleep(0.05)
        yield json.loads(path.read_text())["address"]


@contextlib.contextmanager
def working(scheduler: str, folder: Path, name: str, prefix: Sequence[str] = ()) -> Iterator[None]:
    words = ["-m", "dask", "worker", scheduler, "--nworkers", "1", "--nthreads", "2", "--name", name, "--no-dashboard"]
    with started(words, folder, f"{name}.log", prefix):
        yield


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


def wait_for(workers: int, scheduler: str, folder: Path) -> None:
    code = f"import distributed; distributed.Client({scheduler!r}).wait_for_workers({workers})"
    subprocess.run([sys.executable, "-c", code], env=environment(folder), check=True, capture_output=True)


@contextlib.contextmanager
def recording(folder: Path, name: str) -> Iterator[subprocess.Popen[str]]:
    """`giltrace dask` without a time, once it has begun: what it has said by then is left in its stderr."""
    words = [sys.executable, "-m", "giltrace", "dask", str(folder / "s.json"), "-o", name, "--no-trace"]
    process = subprocess.Popen(words, env=environment(folder), cwd=folder, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def until(process: subprocess.Popen[str], line: str) -> list[str]:
    """What a process says up to a line."""
    assert process.stderr is not None
    told = []
    for one in process.stderr:
        told.append(one)
        if one == line:
            return told
    raise AssertionError("".join(told))


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
    from giltrace.integrations.dask import fleet

    missing = fleet._unable("tcp://a:1", ModuleNotFoundError("No module named 'giltrace'"))
    other = fleet._unable("tcp://a:1", {"giltrace": "0.0.1"})
    silent = fleet._unable("tcp://a:1", TimeoutError("it did not answer"))
    assert [error.remedy.partition(":")[0] for error in (missing, other, silent) if error] == [
        "install it where the workers run",
        "install the same there",
        "see its log, and whether it is stuck",
    ]
    assert fleet._unable("tcp://a:1", {"giltrace": giltrace.__version__}) is None

"""Dask clusters for tests: of this machine, and of hosts that are namespaces of it."""

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
from typing import NamedTuple

from tests.fleets import TARGETS
from tests.processes import descendants


def environment(folder: Path) -> dict[str, str]:
    (folder / "scratch").mkdir(exist_ok=True)
    return {
        **os.environ,
        "PYTHONPATH": str(TARGETS),
        "DASK_TEMPORARY_DIRECTORY": str(folder / "scratch"),
        "DASK_DISTRIBUTED__ADMIN__LOG_FORMAT": "%(message)s",
    }


def command(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "giltrace", *words]
    return subprocess.run(whole, env=environment(folder), cwd=folder, capture_output=True, text=True, check=False)


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
        # What runs it in a namespace heeds no SIGTERM, but ends with it.
        below = descendants(process.pid) if prefix else []
        for pid in below[:1] or [process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
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

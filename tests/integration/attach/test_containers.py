"""Targets that live in a container: other process ids, another /tmp, another root. What is reported is as seen here."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from giltrace.collectors.base import Collector
from giltrace.collectors.pyspy import PySpyCollector
from giltrace.collectors.sched import SchedCollector
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.session import attach
from giltrace.launch.observe import observe
from giltrace.timeline.load import load
from tests import processes
from tests.interpreters import Interpreter
from tests.tracing import TARGETS

pytestmark = pytest.mark.needs("namespaces")

#: Shell commands that make the container's file system, with $1 a folder to do it in, and go on in it with the rest.
ENTER = {
    "own /tmp": 'mount -t tmpfs none /tmp && shift && exec "$@"',
    "own root": (
        'mount -t tmpfs none "$1" && cd "$1" && mkdir changes work root && '
        "mount -t overlay overlay -o lowerdir=/,upperdir=changes,workdir=work root && "
        "mount -t proc proc root/proc && mount -t tmpfs none root/tmp && mkdir root/tmp/old && "
        'cd root && pivot_root . tmp/old && umount -l /tmp/old && rmdir /tmp/old && shift && exec "$@"'
    ),
}


@contextmanager
def contained(kind: str, interpreter: Interpreter, folder: Path) -> Iterator[Process]:
    """A convoy in pid namespace and file system of its own."""
    command: list[str | Path] = ["unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", ENTER[kind], "sh", folder]
    # As text, for the file may lie in our /tmp.
    command += [interpreter.path, "-c", (TARGETS / "observed.py").read_text(), "convoy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        try:
            # It says which id it has itself.
            assert started.stdout.readline() == "1\n"
            (pid,) = processes.descendants(started.pid)
            yield Process(pid)
            assert started.poll() is None
        finally:
            processes.end(processes.descendants(started.pid), grace=0.0)


@pytest.mark.parametrize("kind", ENTER)
@pytest.mark.parametrize("way", ["exact", "observe"])
def test_is_seen_as_from_outside(interpreter: Interpreter, tmp_path: Path, kind: str, way: str) -> None:
    (tmp_path / "container").mkdir()
    folder = tmp_path / "recording"
    with contained(kind, interpreter, tmp_path / "container") as process:
        others: list[Collector] = [SchedCollector(), PySpyCollector()]
        if way == "exact":
            attach(process.pid, folder, others, depth=16, seconds=0.4)
        else:
            observe(process.pid, folder, others, seconds=0.4)
        assert list(process.path_here("/tmp").iterdir()) == []
        tids = set(process.tids())
        timeline = load(folder)
    assert timeline.violations == ()
    assert timeline.clock_error_ns < 1_000_000
    (found,) = timeline.processes
    assert found.pid == process.pid
    assert {"cpu-0", "cpu-1", "io-0"} <= {thread.name for thread in found.threads}
    assert {thread.tid for thread in found.threads} <= tids
    holders = {found.threads[index].name for index in np.unique(found.holds["thread"]).tolist()}
    assert {"cpu-0", "cpu-1"} <= holders
    assert all(set(spans.spans["tid"].tolist()) <= tids for spans in found.spans)

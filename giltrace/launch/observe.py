"""Observe a process that runs already, from outside: from its pid to a finished recording."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import giltrace
from giltrace.collectors.base import Collector, Session
from giltrace.collectors.observe import ObserveCollector, Observer
from giltrace.errors import OutputError, TargetError
from giltrace.launch.recorder import POLL_SECONDS, Crew
from giltrace.native.observe import End
from giltrace.recording.folder import RecordingFolder
from giltrace.recording.meta import Meta


def observe(pid: int, path: Path, others: Sequence[Collector], *, seconds: float | None, force: bool = False) -> End:
    """Observe process `pid` into the new folder `path` for `seconds` (None: until it ends), or until SIGINT or SIGTERM.

    `others` are collectors that can look at a running process too. Returns why it ended. Raises `TargetError` or
    `OutputError`, in which case `path` is as it was.
    """
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace").split("\0")
    except OSError:
        command = []  # the observer says what is the matter
    observer = Observer(pid)
    try:
        folder = RecordingFolder(path, force=force)
    except OutputError:
        observer.close()
        raise
    meta = Meta.begin(giltrace.__version__, command)
    meta.write(path)
    crew = Crew([ObserveCollector(observer), *others], observer.interpreter.executable)
    crew.start(Session(path, pid, observer.interpreter.executable))
    problem = crew.reports[ObserveCollector.name].status
    if problem != "ok":
        crew.stop()
        folder.abandon()
        raise TargetError(f"process {pid} cannot be observed: {problem}")
    folder.keep()
    with _signals() as interrupted:
        end = _watch(observer, crew, interrupted, seconds)
    meta.end_ns = time.monotonic_ns()
    crew.stop()
    meta.collectors = [asdict(report) for report in crew.reports.values()]
    meta.state = "complete"
    meta.write(path)
    return end


def _watch(observer: Observer, crew: Crew, interrupted: int, seconds: float | None) -> End:
    deadline = time.monotonic() + seconds if seconds is not None else float("inf")
    while observer.end is End.RUNNING and time.monotonic() < deadline:
        crew.poll()
        if select.select([interrupted], [], [], max(0, min(POLL_SECONDS, deadline - time.monotonic())))[0]:
            break
    return observer.end


@contextmanager
def _signals() -> Iterator[int]:
    """A descriptor that becomes readable when somebody wants this to end."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    wakeup = signal.set_wakeup_fd(write)
    old = {one: signal.signal(one, lambda number, frame: None) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield read
    finally:
        for one, handler in old.items():
            signal.signal(one, handler)
        signal.set_wakeup_fd(wakeup)
        os.close(read)
        os.close(write)

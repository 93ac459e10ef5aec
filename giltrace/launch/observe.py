"""Observe a process that runs already, from outside: from its pid to a finished recording."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import giltrace
from giltrace.collectors.base import Collector, Session
from giltrace.collectors.observe import ObserveCollector, Observer
from giltrace.errors import OutputError, TargetError
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.sleepers import Sleepers, seen_again
from giltrace.launch.recorder import POLL_SECONDS, Crew
from giltrace.native.observe import End
from giltrace.recording.folder import RecordingFolder
from giltrace.recording.meta import Meta
from giltrace.views.ending import Ending


class Observation:
    """An observation of process `pid` under way, written into the new folder `path`; the constructor begins it.

    `others` are collectors that can look at a running process too. Raises `TargetError` or `OutputError`, in which case
    `path` is as it was.
    """

    def __init__(self, pid: int, path: Path, others: Sequence[Collector], *, force: bool = False) -> None:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode(errors="replace").split("\0")
        except OSError:
            command = []  # the observer says what is the matter
        self.observer = Observer(pid)
        try:
            folder = RecordingFolder(path, force=force)
        except OutputError:
            self.observer.close()
            raise
        self._path = path
        self.meta = Meta.begin(giltrace.__version__, command)
        self._process = Process(pid)
        self.sleepers = Sleepers(self._process)
        self.meta.thread_names = {str(tid): thread.name for tid, thread in self.sleepers.learn().items()}
        self.meta.ids = self._process.ids_here()
        self.meta.write(path)
        executable = self.observer.interpreter.executable
        self._crew = Crew([ObserveCollector(self.observer), *others], executable)
        self._crew.start(Session(path, pid, executable), alone=True)
        problem = self._crew.reports[ObserveCollector.name].status
        if problem != "ok":
            self._crew.stop()
            folder.abandon()
            raise TargetError(f"process {pid} cannot be observed: {problem}")
        self.meta.asleep = self.sleepers.look()
        self.meta.write(path)
        folder.keep()

    def poll(self) -> None:
        """Write what was seen; to be called many times a second."""
        self._crew.poll()
        if self.meta.ids:
            self.meta.ids |= self._process.ids_here()

    def finish(self) -> None:
        """End the observation, and write down what came of it."""
        self.meta.asleep = seen_again(self.meta.asleep, self.sleepers.look())
        self.meta.end_ns = time.monotonic_ns()
        self._crew.stop()
        self.meta.collectors = [asdict(report) for report in self._crew.reports.values()]
        self.meta.state = "complete"
        self.meta.write(self._path)


def observe(
    pid: int,
    path: Path,
    others: Sequence[Collector],
    *,
    seconds: float | None,
    force: bool = False,
    begun: Callable[[], None] | None = None,
) -> End:
    """Observe process `pid` for `seconds` (None: until it ends), or until SIGINT or SIGTERM; see `Observation`.

    `begun` is called once nothing stands in its way any more. Returns why it ended.
    """
    observation = Observation(pid, path, others, force=force)
    if begun is not None:
        begun()
    with Ending() as ending:
        end = _watch(observation, ending, seconds)
    observation.finish()
    return end


def _watch(observation: Observation, ending: Ending, seconds: float | None) -> End:
    deadline = time.monotonic() + seconds if seconds is not None else float("inf")
    observer = observation.observer
    while observer.end is End.RUNNING and ending.signal is None and time.monotonic() < deadline:
        observation.poll()
        time.sleep(max(0.0, min(POLL_SECONDS, deadline - time.monotonic())))
    return observer.end

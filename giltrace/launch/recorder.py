"""Run a target under the collectors: from the command line's words to a finished recording."""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

import giltrace
from giltrace.collectors.base import Collector, Session
from giltrace.errors import GiltraceError
from giltrace.launch.beside import taken_beside
from giltrace.launch.child import Child
from giltrace.launch.room import Room
from giltrace.launch.target import Target
from giltrace.recording.collected import CollectorReport
from giltrace.recording.cores_log import CoresLog
from giltrace.recording.folder import RecordingFolder
from giltrace.recording.meta import Meta

POLL_SECONDS = 0.05
#: How often the program is looked after once its recording has ended: its new processes are not to be recorded.
UNRECORDED_SECONDS = 0.5


class Crew:
    """The collectors that can run here, and the reports of those that cannot.

    A collector that fails loses its own data only: its error becomes its status.
    """

    def __init__(self, collectors: Sequence[Collector], python: str | None) -> None:
        self.reports: dict[str, CollectorReport] = {}
        self.active: list[Collector] = []
        self._cores: CoresLog | None = None
        for collector in collectors:
            reason = collector.available(python)
            if reason is None:
                self.active.append(collector)
            self.reports[collector.name] = CollectorReport(collector.name, reason or "ok")

    def _each(self, step: Callable[[Collector], CollectorReport | None]) -> None:
        for collector in list(self.active):
            try:
                report = step(collector)
            except (OSError, ValueError, GiltraceError) as error:
                self.active.remove(collector)
                why = error.message if isinstance(error, GiltraceError) else _reason(error)
                report = CollectorReport(collector.name, f"failed: {why}")
            if report is not None:
                self.reports[collector.name] = report

    def prepare(self, folder: Path, env: dict[str, str]) -> None:
        """Let each change the environment that the target will start with."""
        self._each(lambda collector: collector.prepare(folder, env))

    def start(self, session: Session, *, alone: bool = False) -> None:
        """Let each begin. `alone`: of the recorded processes, only the session's has the id here that it gives."""
        self._cores = CoresLog(session.folder, session.pid, alone=alone)
        self._each(lambda collector: collector.start(session))

    def poll(self) -> None:
        """Let each drain its buffers."""
        if self._cores is not None:
            self._cores.look()
        self._each(lambda collector: collector.poll())

    def look(self) -> None:
        """See what the processes may use, now: it may be the last time."""
        if self._cores is not None:
            self._cores.look(now=True)

    def stop(self) -> None:
        """Let each finish; `reports` then has what they say."""
        self.look()
        self._each(lambda collector: collector.stop())


def _reason(error: OSError | ValueError) -> str:
    """Why a collector failed. What a library says of values that it cannot use says nothing to whoever reads it."""
    if isinstance(error, OSError):
        return str(error)
    place = traceback.extract_tb(error.__traceback__)
    ours = next(
        (f" at {Path(one.filename).name}:{one.lineno}" for one in reversed(place) if _is_ours(one.filename)), ""
    )
    return f"a fault in giltrace ({type(error).__name__}{ours}), please report it; the rest of the recording is whole"


def _is_ours(file: str) -> bool:
    return Path(giltrace.__file__).parent in Path(file).parents


class Executed:
    """The `program` that a process executes, by its path, as it was last seen; empty if that is not known."""

    def __init__(self, pid: int) -> None:
        self.program, self._pid, self._name = "", pid, b""

    def look(self) -> None:
        """Look at it now."""
        with suppress(OSError):
            # In this order: of what is executed in between, the name that it ends with is another one.
            name = self._name_now()
            self.program, self._name = os.readlink(f"/proc/{self._pid}/exe"), name

    def end(self) -> None:
        """It has ended, and can still be asked of: its program is gone, its name is that of the last one."""
        with suppress(OSError):
            if self._name_now() != self._name:
                self.program = ""

    def _name_now(self) -> bytes:
        with open(f"/proc/{self._pid}/comm", "rb") as file:
            return file.read()


def _wait(child: Child, executed: Executed, crew: Crew) -> int | None:
    """Wait for its end until it is time to look again; see `Child.wait`."""

    def ended() -> None:
        executed.end()
        crew.look()

    executed.look()
    return child.wait(POLL_SECONDS, ended)


def _lived(path: Path, pid: int, program: str, *, ended: bool) -> list[int]:
    """The processes known to have run up to now, in the image recorded last; `program` is what `pid` executed."""
    # Only now: the target was started without numpy.
    from giltrace.process.folder import Folder
    from giltrace.recording.locate import last_wrote, writers

    with Folder.own(path) as folder:
        return writers(folder) + ([pid] if ended and last_wrote(folder, pid, program) else [])


def record(
    target: Target,
    path: Path,
    collectors: Sequence[Collector],
    *,
    force: bool = False,
    meanwhile: Iterable[object] = (),
    ending: Callable[[], AbstractContextManager[None]] = nullcontext,
    room: Room | None = None,
) -> int:
    """Record `target` into the new folder `path`; returns its exit status, negative for a signal's number.

    Where there is no more `room`, recording ends, and the target goes on. The steps of `meanwhile` are taken while the
    target runs. The block that `ending` gives is around what is left to do
    once it has ended.

    Raises `OutputError` or `TargetError`, in which case nothing was started and `path` is as it was.
    """
    folder = RecordingFolder(path, force=force)
    crew = Crew(collectors, target.python)
    env = dict(os.environ)
    if any(report.name == "sched" and not report.ok for report in crew.reports.values()):
        env["GILTRACE_CORE"] = "1"  # the cores at each acquire are then the only ones known
    crew.prepare(path, env)
    meta = Meta.begin(giltrace.__version__, target.argv)
    meta.write(path)
    child = Child(target.argv, env)
    try:
        try:
            crew.start(Session(path, child.pid, target.python))
        except BaseException:
            child.cancel()
            raise
        child.release()
    except BaseException:
        crew.stop()
        folder.abandon()
        raise
    executed = Executed(child.pid)
    with taken_beside(meanwhile):
        folder.keep()
        if room is not None:
            room.start()
        status = _wait(child, executed, crew)
        while status is None:
            crew.poll()
            if room is not None and (why := room.full()):
                meta.ended = why
                break
            status = _wait(child, executed, crew)
        meta.end_ns = time.monotonic_ns()
    meta.exit_status = status
    with suppress(OSError):  # the folder may be gone
        meta.lived = [[pid, meta.end_ns] for pid in _lived(path, child.pid, executed.program, ended=status is not None)]
    if room is not None and status is None:
        room.send_away()
    with ending():
        crew.stop()
    meta.collectors = [asdict(report) for report in crew.reports.values()]
    meta.state = "complete"
    meta.write(path)
    while status is None:
        if room is not None:
            room.send_away()
        status = child.wait(UNRECORDED_SECONDS)
    return status

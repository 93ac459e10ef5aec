"""Record a process that runs already: from its id to a finished recording, leaving it as it was."""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path

import giltrace
from giltrace.collectors.base import Collector, Session
from giltrace.collectors.gil import HOLD_LIMIT, PAIR_INTERVAL_NS, WAIT_LIMIT, GilCollector
from giltrace.errors import OutputError, TargetError
from giltrace.launch.attach import refusals
from giltrace.launch.attach.heads import marked_as_recorded
from giltrace.launch.attach.holders import gil_holders
from giltrace.launch.attach.inject import Plan
from giltrace.launch.attach.links import Links
from giltrace.launch.attach.place import Place, find_place
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.progress import EventCount
from giltrace.launch.attach.sleepers import Sleepers, seen_again
from giltrace.launch.attach.target import Target
from giltrace.launch.attach.tracer import AttachedTracer
from giltrace.launch.recorder import POLL_SECONDS, Crew
from giltrace.process.folder import Folder
from giltrace.recording.folder import RecordingFolder
from giltrace.recording.locate import Writers
from giltrace.recording.meta import Meta
from giltrace.views.ending import Ending

_SHOW_SECONDS = 0.2


@dataclass(frozen=True)
class Outcome:
    """What attaching did to the process. `said` is what there is to be said about how it was left, if anything.

    `stops_ns` tells for each time that one of its threads was stopped for how long that was.
    """

    said: list[str]
    stops_ns: list[int]


def attach(
    pid: int,
    path: Path,
    collectors: Sequence[Collector],
    *,
    depth: int,
    ring: int = 0,
    seconds: float | None = None,
    force: bool = False,
    allow_seccomp: bool = False,
    progress: Callable[[float, int], None] | None = None,
) -> Outcome:
    """Record process `pid` into the new folder `path`, exactly, for `seconds` or until a signal or its end.

    `collectors` come on top of the tracer, which reads up to `depth` frames per stack, and with `ring` (bytes) keeps
    its newest events only. `progress` is called a few times a second with the seconds and the events so far. Raises
    `TargetError` or `OutputError`, in which case the process and `path` are as they were.
    """
    process = refusals.find(pid)
    reason = GilCollector().available(None)
    if reason is not None:
        raise TargetError(reason)
    target = refusals.check_exact(process, allow_seccomp=allow_seccomp)
    if ring:
        refusals.check_followable(process, "leave --ring out, or run giltrace in its container")
    folder = RecordingFolder(path, force=force)
    try:
        with Ending() as ending, marked_as_recorded(path), alive(process) as lives:
            place = find_place(target, path)
            try:
                recording = Recording(target, place, path, collectors, depth, lambda: ending.signal is not None, ring)
                folder.keep()
                try:
                    _follow(recording, lambda: lives() and ending.signal is None, seconds, progress)
                finally:
                    outcome = recording.finish()
                return outcome
            finally:
                place.abandon()
    except OSError as error:
        folder.abandon()
        raise OutputError(
            f"cannot write {path}: {error.strerror}", "free space there, or choose another place"
        ) from None
    except BaseException:
        folder.abandon()
        raise


class Recording:
    """A recording under way; the constructor begins it, or raises with everything as it was."""

    def __init__(
        self,
        target: Target,
        place: Place,
        path: Path,
        collectors: Sequence[Collector],
        depth: int,
        ending: Callable[[], bool],
        ring: int = 0,
    ) -> None:
        process = target.process
        self._process, self._path, self._place = process, path, place
        self.meta = Meta.begin(giltrace.__version__, ["attach", str(process.pid), *process.command()])
        self.sleepers = Sleepers(process)
        self.meta.thread_names = {str(tid): thread.name for tid, thread in self.sleepers.learn().items()}
        self.meta.ids = process.ids_here()
        self.meta.write(path)
        self._gil = GilCollector(depth)
        self._writers = Writers(place.files)
        self._lived: dict[int, int] = {}
        self._next_look_ns = 0
        self._crew = Crew([self._gil, *collectors], None)
        # A ring is followed while it grows.
        self._follows = ring > 0 and not place.is_direct
        self._links = Links(place.files, path)
        told: dict[str, str] = {}
        self._crew.prepare(path, told)
        plan = Plan(depth, ring, int(told.get(WAIT_LIMIT, 0)), int(told.get(HOLD_LIMIT, 0)))
        try:
            files = place.files if self._follows else None
            self._crew.start(Session(path, process.pid, None, files), alone=bool(self.meta.ids))
            self._tracer = AttachedTracer(target, place, plan, ending)
            self.meta.holders = gil_holders(process)
            self.meta.asleep = self.sleepers.look()
            self.meta.write(path)
        except BaseException:
            self._crew.stop()
            self._links.close()
            raise

    @property
    def files(self) -> Folder:
        """Where the tracer's files grow."""
        return self._place.files

    def poll(self) -> None:
        """Keep it going; to be called many times a second."""
        if self._follows:
            self._links.look()
        self._crew.poll()
        self._tracer.poll()
        if time.monotonic_ns() >= self._next_look_ns:
            self._look_who_lives()
        if self.meta.ids:
            self.meta.ids |= self._process.ids_here()

    def _look_who_lives(self) -> None:
        """Note until when each process has written, or computed and would have written."""
        now = time.monotonic_ns()
        self._next_look_ns = now + PAIR_INTERVAL_NS
        # Its user may take the folder away: the process goes on, and so does this.
        with contextlib.suppress(OSError):
            self._lived |= dict.fromkeys(self._writers.look(self.meta.ids), now)

    def finish(self) -> Outcome:
        """Take the tracer out, let the collectors finish, and write down what came of it."""
        self.meta.asleep = seen_again(self.meta.asleep, self.sleepers.look())
        self._look_who_lives()
        # Until now the tracer is there for sure. To leave takes a while, in which no end of what is under way is seen.
        self.meta.end_ns = time.monotonic_ns()
        said = self._tracer.stop()
        self.meta.lived = [list(one) for one in self._lived.items()]
        if self._follows:
            self._crew.stop()  # what follows the files ends before they move
        self._links.close()
        said += self._place.collect(self._path)
        reports = self._crew.reports
        if self._follows:
            reports["gil"] = self._gil.report(self._path)  # of all files, now that they are here
        else:
            self._crew.stop()
        footprint = self._tracer.footprint
        self.meta.stops, self.meta.own_threads = ([list(one) for one in all_] for all_ in astuple(footprint))
        longest = max(footprint.lengths) / 1e6
        stopped = f"; a thread was stopped for {longest:.1f} ms at most"
        reports["gil"] = replace(reports["gil"], cost=reports["gil"].cost + stopped)
        self.meta.collectors = [asdict(report) for report in reports.values()]
        self.meta.state = "complete"
        self.meta.write(self._path)
        return Outcome(said, footprint.lengths)


def _follow(
    recording: Recording,
    goes_on: Callable[[], bool],
    seconds: float | None,
    progress: Callable[[float, int], None] | None,
) -> None:
    begin = shown = time.monotonic()
    count = EventCount(recording.files)
    while goes_on() and (seconds is None or time.monotonic() - begin < seconds):
        recording.poll()
        if progress is not None and time.monotonic() - shown > _SHOW_SECONDS:
            shown = time.monotonic()
            progress(shown - begin, count.count())
        left = POLL_SECONDS if seconds is None else min(POLL_SECONDS, begin + seconds - time.monotonic())
        time.sleep(max(0.0, left))


@contextlib.contextmanager
def alive(process: Process) -> Iterator[Callable[[], bool]]:
    """Tell, again and again, whether the process still runs: that very process, not another with its id."""
    try:
        handle = os.pidfd_open(process.pid)
    except ProcessLookupError:
        raise TargetError(f"process {process.pid} has ended") from None
    try:
        ends = select.poll()  # not select(), which knows descriptors up to 1023 only
        ends.register(handle, select.POLLIN)
        yield lambda: not ends.poll(0)
    finally:
        os.close(handle)

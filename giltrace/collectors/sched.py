"""The sched collector: every switch of every thread below the target, with its core, from perf events.

The same events sample what code a thread runs, so that C code that keeps the GIL has a name.
"""

from __future__ import annotations

import errno
import mmap
import os
import select
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from giltrace.collectors import _perf
from giltrace.process.program_files import ProgramFiles
from giltrace.recording.folder import GIL_NAME
from giltrace.recording.maps_file import DEPTH, MapsFile

if TYPE_CHECKING:
    from giltrace.collectors.base import Session
    from giltrace.recording.collected import CollectorReport

#: How long a record may lie in a ring that does not fill up.
_DRAIN_MS = 50

_BIRTH_SECONDS = 0.002

#: How often code is looked at, in time that a thread runs: a hog of 50 ms has ten samples or so.
PERIOD_NS = 5_000_000


class SchedCollector:
    """One perf event per core and thread follows the target and all its descendants into `sched-<cpu>.bin`.

    A target that has only just been started has one thread; those of a running one are all given events, for only
    threads that are started later inherit them.

    A thread of its own empties the rings as soon as one is a quarter full: an unprivileged user's rings
    hold only 16,000 records a core, and a busy GIL can fill that between two polls of the recorder. With `ring` (bytes)
    the newest records are kept only, at least so many per core. A look at what native code a thread runs is taken once
    in `period_ns` of its time on a core, none if that is 0.
    """

    name = "sched"

    def __init__(self, ring: int = 0, period_ns: int = PERIOD_NS) -> None:
        self._ring = ring
        self._folder = Path()
        self._pid = 0
        self._pages = 0
        self._rings: list[_perf.Ring] = []
        self._problem = "not started"
        self._seconds = 0.0
        self._thread: threading.Thread | None = None
        self._wake = (-1, -1)
        self._sampling = _perf.Sampling(period_ns, DEPTH) if period_ns else None
        self._unsampled = ""
        self._program: ProgramFiles | None = None
        self._maps: MapsFile | None = None
        self._turns = 0

    def available(self, python: str | None) -> str | None:
        """Say why the kernel does not let this user see context switches; None when it does."""
        return _perf.why_not()

    def prepare(self, folder: Path, env: dict[str, str]) -> None:
        """Nothing to do: the kernel does all of it."""

    def start(self, session: Session) -> None:
        """Open a ring per core, and on each an event for every thread of the target, which those it starts inherit."""
        self._folder, self._pid = session.folder, session.pid
        self._problem = ""
        begin = time.monotonic_ns()
        try:
            self._open_rings()
            self._follow_older_threads()
        except OSError as error:
            self._problem = _perf.explain(error)
            self._close()
            return
        self._look_at_code(begin)
        self._wake = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._drain, name="giltrace-sched", daemon=True)
        self._thread.start()

    def _open_rings(self) -> None:
        self._pages = _perf.ring_pages()
        for cpu in _perf.online_cpus():
            path = self._folder / f"sched-{cpu}.bin"
            ring = _perf.Ring(self._open(self._pid, cpu), path, self._pages, self._ring)
            self._rings.append(ring)
            self._pages = ring.pages  # what the first core could not have, the others need not try

    def _open(self, tid: int, cpu: int) -> int:
        wakeup = self._pages * mmap.PAGESIZE // 4
        if self._sampling is not None:
            try:
                return _perf.open_switches(tid, cpu, inherit=True, wakeup=wakeup, sampling=self._sampling)
            except OSError as error:
                if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOENT):
                    raise
                self._sampling = None
                self._unsampled = f"; no C functions of hogs: the kernel takes no samples ({error.strerror})"
        return _perf.open_switches(tid, cpu, inherit=True, wakeup=wakeup)

    def _look_at_code(self, begin: int) -> None:
        """Remember what the target runs that has been there for longer than since `begin` (ns)."""
        if self._sampling is None:
            return
        try:
            self._program = ProgramFiles(self._pid)
            self._maps = MapsFile(self._folder)
            self._maps.look({self._pid}, begin)
        except OSError as error:
            self._unsampled = f"; no C functions of hogs: {error.strerror}"

    def _follow_older_threads(self) -> None:
        """Give events to the threads that were there before, again and again until there is none without."""
        followed = {self._pid}
        while fresh := self._threads() - followed:
            fresh -= self._inherited()
            if not fresh:
                return
            _perf.allow_descriptors((len(followed) + len(fresh)) * len(self._rings))
            for tid in fresh:
                self._follow(tid)
            followed |= fresh

    def _follow(self, tid: int) -> None:
        for cpu, ring in zip(_perf.online_cpus(), self._rings, strict=True):
            try:
                fd = self._open(tid, cpu)
            except ProcessLookupError:
                return  # it has just ended
            ring.share(fd)

    def _threads(self) -> set[int]:
        try:
            return {int(name) for name in os.listdir(f"/proc/{self._pid}/task")}
        except OSError:
            return set()

    def _inherited(self) -> set[int]:
        """Threads started by those that have events: they have their parents'."""
        from giltrace.recording.sched import read_births

        time.sleep(_BIRTH_SECONDS)  # a thread shows in /proc a little before its birth is on record
        for ring in self._rings:
            ring.drain()
        return read_births(self._folder)

    def poll(self) -> None:
        """Keep what a ring is about to lose of what is mapped; else the rings are emptied by their own thread."""
        turns = sum(ring.turns for ring in self._rings)
        if turns != self._turns and self._maps is not None:
            self._turns = turns
            names = map(GIL_NAME.fullmatch, os.listdir(self._folder))
            self._maps.look({self._pid, *(int(name[1]) for name in names if name)}, time.monotonic_ns())

    def stop(self) -> CollectorReport:
        """Copy what is left, close the events, and count what the kernel dropped."""
        from giltrace.recording.collected import CollectorReport
        from giltrace.recording.sched import count_records

        if self._thread is not None:
            os.close(self._wake[1])
            self._thread.join()
            self._thread = None
            os.close(self._wake[0])
        if self._problem:
            return CollectorReport(self.name, self._problem)
        self._close()
        size = sum(ring.bytes for ring in self._rings)
        unwritten = sum(ring.bytes_unwritten for ring in self._rings)
        records, lost = count_records(self._folder)
        cost = f"{records:,} records ({size / 1e6:.1f} MB) copied in {self._seconds * 1e3:.0f} ms{self._name_code()}"
        status = "ok"
        if unwritten:
            status = f"{unwritten:,} bytes of switches could not be written: free space in {self._folder}"
        return CollectorReport(self.name, status, cost=cost, lost=lost)

    def _name_code(self) -> str:
        """Give the code that was seen its names; in words, what that cost."""
        if self._program is None:
            return self._unsampled
        from giltrace.collectors._code_names import name_code

        begin = time.thread_time()
        try:
            with self._program as program:
                count = name_code(self._folder, program.open)
        except OSError as error:
            return f"; no C functions of hogs: {error.strerror}"
        return f"; {count:,} samples of native code named in {(time.thread_time() - begin) * 1e3:.0f} ms"

    def _drain(self) -> None:
        poller = select.poll()
        poller.register(self._wake[0], select.POLLIN)
        for ring in self._rings:
            poller.register(ring.fd, select.POLLIN)
        while True:
            ready = poller.poll(_DRAIN_MS)
            begin = time.thread_time()
            for ring in self._rings:
                ring.drain()
            self._seconds += time.thread_time() - begin
            for fd, events in ready:
                if fd == self._wake[0]:
                    return
                if events & ~select.POLLIN:
                    poller.unregister(fd)  # the target has ended; its descriptor would be ready for ever

    def _close(self) -> None:
        for ring in self._rings:
            ring.close()

"""The observer: the GILs of a running process, read from outside some ten thousand times a second.

Nothing in the target changes and nothing stops: its memory is read (process_vm_readv), and what its threads wait for is
asked of the kernel (/proc/PID/task/TID/syscall). What it finds is sampled, and called so wherever it is shown.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from giltrace import installation, native
from giltrace.errors import TargetError
from giltrace.native.observe import End, Sampler, Setup, Stats
from giltrace.process.interpreter import find_interpreter, steadily
from giltrace.process.stat import stat_fields
from giltrace.process.thread_names import ThreadNames
from giltrace.recording import layout
from giltrace.recording.collected import CollectorReport

if TYPE_CHECKING:
    from giltrace.collectors.base import Session

#: Between two samples: 12.5 kHz.
INTERVAL_NS = 80_000

#: How often to look for GILs of new interpreters.
_GILS_SECONDS = 0.5


@dataclass(frozen=True)
class Batch:
    """Events that were seen since the batch before, in order of time.

    `events` has dtype `giltrace.native.observe.EVENT`; its `thread` indexes `tids`, the kernel's ids of all threads
    that were ever known, to which later batches only add.
    """

    events: npt.NDArray[np.void]
    tids: npt.NDArray[np.uint32]


class Observer:
    """Observes the GILs of process `pid` from now on, until `stop`; `interval_ns` is the time between two samples.

    Call `poll` a few times a second for what there is to see. Raises `TargetError`, before anything is read on,
    if the process is gone, may not be read, or is no CPython with a GIL that is understood.
    """

    def __init__(self, pid: int, interval_ns: int = INTERVAL_NS) -> None:
        problem = unavailable()
        if problem is not None:
            raise TargetError(problem, "")
        self.pid = pid
        self.interpreter = find_interpreter(pid)
        offsets = self.interpreter.offsets
        try:
            self.gils = steadily(self.interpreter.gils)
            self._pthread_tid = steadily(self.interpreter.pthread_tid_offset)
        except OSError as error:
            raise TargetError(f"process {pid} ended or changed while it was looked at ({error})", "try again") from None
        setup = Setup(
            interval_ns=interval_ns,
            pid=pid,
            thread_id=offsets.thread_id,
            native_id=max(offsets.native_id, 0),
            pthread_tid=self._pthread_tid,
        )
        self._tids = np.empty(0, np.uint32)
        self._next_gils = time.monotonic() + _GILS_SECONDS
        self._sampler = Sampler(setup, self.gils[0])
        for gil in self.gils[1:]:
            self._sampler.add(gil)
        self._stopped = False

    def poll(self) -> Batch:
        """Return what was seen since the last call; also after `stop`, for the last of it."""
        if not self._stopped and time.monotonic() >= self._next_gils:
            self._find_gils()
        # First the events: then the threads that they name are known.
        events = self._sampler.read()
        new = self._sampler.threads(len(self._tids))
        if new:
            self._tids = np.concatenate([self._tids, np.array(new, np.uint32)])
        return Batch(events, self._tids)

    def stats(self) -> Stats:
        """How densely it has sampled so far, and what it has missed."""
        return self._sampler.stats()

    def tid_of(self, own: int | None, pthread: int) -> int | None:
        """The kernel's id here of a thread, None if it has ended.

        `own` is its id in the process's own pid namespace (`threading.get_native_id()`), None if that is not known;
        `pthread` its pthread id (`threading.get_ident()`).
        """
        try:
            if own is None and self._pthread_tid:
                own = self.interpreter.memory.word(pthread + self._pthread_tid, 4)
            return self.interpreter.tids().get(own) if own is not None else None
        except OSError:
            return None

    @property
    def end(self) -> End:
        """Why it is over, `End.RUNNING` while it is not."""
        return End(self.stats().end)

    def stop(self) -> None:
        """Stop sampling. What was seen until now can still be polled."""
        if not self._stopped:
            self._stopped = True
            self._sampler.stop()

    def close(self) -> None:
        """Give everything back; nothing can be called afterwards."""
        self.stop()
        self._sampler.close()
        self.interpreter.memory.close()

    def _find_gils(self) -> None:
        self._next_gils = time.monotonic() + _GILS_SECONDS
        try:
            found = self.interpreter.gils()
        except OSError:
            return  # it is changing, or ending
        for gil in found:
            if gil not in self.gils and self._sampler.add(gil):
                self.gils.append(gil)


class ObserveCollector:
    """Writes what an observer sees into the recording, as it comes: `gil-<pid>-<n>.bin`, marked as observed."""

    name = "observe"

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._writer: _Writer | None = None

    def available(self, python: str | None) -> str | None:
        """See `Collector.available`."""
        return unavailable()

    def prepare(self, folder: Path, env: dict[str, str]) -> None:
        """Nothing to do: the target runs already."""

    def start(self, session: Session) -> None:
        """Begin the file; the observer has begun already."""
        self._writer = _Writer(session.folder, self._observer)

    def poll(self) -> None:
        """Write what was seen since the last time."""
        if self._writer is not None:
            self._writer.write()

    def stop(self) -> CollectorReport:
        """End the observation and the file, and say how well it went."""
        self._observer.stop()
        assert self._writer is not None
        self._writer.finish()
        stats = self._observer.stats()
        self._observer.close()
        seconds = stats.sampled_ns / 1e9
        share = 100 * stats.cpu_ns / stats.sampled_ns if stats.sampled_ns else 0.0
        cost = f"{stats.samples:,} samples in {seconds:.1f} s used {share:.0f} % of one core; none of the target's time"
        status = "ok"
        if stats.end == End.REPLACED:
            status = "the process executed another program: observe it anew"
        elif stats.end == End.SENSELESS:
            status = "what was read stopped making sense as a GIL, so reading was ended"
        return CollectorReport(self.name, status, cost, int(_typical_gap(stats)), int(stats.lost))


class _Writer:
    """The file of one observation."""

    def __init__(self, folder: Path, observer: Observer) -> None:
        from giltrace.collectors.pyspy import find_program
        from giltrace.recording.gil_writer import GilWriter

        self._observer = observer
        self._names = ThreadNames(observer.pid, find_program(), observer.tid_of)
        self._told: dict[int, str] = {}
        self._numbers: dict[int, int] = {}
        self._header = _describe(observer)
        self._file = GilWriter(folder, self._header)

    def write(self) -> None:
        batch = self._observer.poll()
        self._file.append(batch.events, batch.tids)
        # The first ones matter most, and a number may have come to be another thread's.
        self._numbers.update((int(tid), number) for number, tid in enumerate(batch.tids.tolist()))
        self._names.look(set(self._numbers))
        self._tell_names()
        self._tell_stats()

    def finish(self) -> None:
        self.write()
        self._names.finish(set(self._numbers))
        self._tell_names()
        self._file.close()

    def _tell_names(self) -> None:
        for tid, name in self._names.known.items():
            if tid in self._numbers and self._told.get(self._numbers[tid]) != name:
                self._told[self._numbers[tid]] = name
                self._file.name(self._numbers[tid], name)

    def _tell_stats(self) -> None:
        stats = self._observer.stats()
        for field in (
            "samples",
            "sampled_ns",
            "known_until_ns",
            "longest_gap_ns",
            "switches",
            "switches_missed",
            "lost",
        ):
            self._header[field] = getattr(stats, field)
        self._header["typical_gap_ns"] = _typical_gap(stats)
        gils = self._observer.gils[: layout.MAX_GILS]
        self._header["gil_count"] = len(gils)
        self._header["gils"][0, : len(gils)] = gils
        self._file.write_header()


def _typical_gap(stats: Stats) -> float:
    """The length of the gap that a random instant lies in, ns: the mean of all gaps, each as likely as it is long."""
    return float(stats.squared_gaps / stats.sampled_ns) if stats.sampled_ns else 0.0


def _describe(observer: Observer) -> npt.NDArray[np.void]:
    header = np.zeros(1, layout.HEADER)
    header["version"] = layout.VERSION
    header["pid"] = observer.pid
    header["clock"] = layout.Clock.MONOTONIC_NS
    header["start_ticks"] = header["start_ns"] = time.monotonic_ns()
    header["status"] = layout.Status.GIL_SEEN | layout.Status.OBSERVED
    header["python"] = observer.interpreter.version.encode()
    header["executable"] = os.fsencode(observer.interpreter.executable)[:511]
    # Of one that has just ended, what was seen still counts.
    with contextlib.suppress(OSError):
        header["cmdline"] = Path(f"/proc/{observer.pid}/cmdline").read_bytes()[:2047]
        header["ppid"] = int(stat_fields(observer.pid)[1])
    return header


def unavailable() -> str | None:
    """Say in one line why no process can be observed here, remedy included; None when it can be tried."""
    if sys.platform != "linux" or sys.maxsize < 1 << 32:
        return "observing is made for 64-bit Linux"
    if not native.LIBRARY.exists():
        return f"{installation.UNBUILT}: {installation.how_to_build()}"
    if not Path("/proc/self/syscall").exists():
        return "the kernel was built without /proc/PID/syscall, which says who waits: use `giltrace record`"
    return None

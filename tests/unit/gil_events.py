"""Write the native tracer's records by hand: what a thread did, in the words of the design."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from giltrace.recording.collected import CollectorReport
from giltrace.recording.events import (
    GIL_EVENT,
    HELD,
    PLACE,
    SWITCH,
    TASK,
    Exec,
    ProcessEvents,
    SchedEvents,
    Spans,
    ThreadInfo,
)
from giltrace.recording.layout import NO_CORE, POWER_BITS, Kind, Outcome, RecordFlag, WakeFlag, Way
from giltrace.timeline.build import build_timeline
from giltrace.timeline.model import Process, Timeline

PID = 100
US, MS = 1_000, 1_000_000


def _wait(us: int) -> int:
    digits, power = us, 0
    while digits > 999:
        digits, power = digits // 10, power + 1
    return digits << POWER_BITS | power


@dataclass
class Script:
    """Records of one process image; thread i has tid `tids[i]`. Times are ns."""

    tids: Sequence[int] = (PID, 101, 102)
    pid: int = PID
    start: int = 0
    gils: int = 1
    note: str = ""
    python: str = "3.13.0 (main)"
    records: list[tuple[int, int, int, int, int, int, int]] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    held: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, kind: Kind, time: int, thread: int, *, gil: int = 0, arg: int = 0, flags: int = 0) -> Script:
        self.records.append((time, arg, thread, gil, int(kind), int(flags), -1))
        return self

    def request(self, time: int, thread: int, gil: int = 0, *, us: int = 0) -> Script:
        """`us` as for `timeout`, of the wait that follows."""
        return self.add(Kind.REQUEST, time, thread, gil=gil, arg=_wait(us))

    def timeout(self, time: int, thread: int, gil: int = 0, *, asks: bool = True, us: int = 0) -> Script:
        """`us` is the length of the timed wait, in microseconds: up to three digits and zeros; 0 for unknown."""
        flags = RecordFlag.SWITCH_REQUEST if asks else 0
        return self.add(Kind.TIMEOUT, time, thread, gil=gil, arg=_wait(us), flags=flags)

    def acquire(self, time: int, thread: int, gil: int = 0, core: int = NO_CORE) -> Script:
        return self.add(Kind.ACQUIRE, time, thread, gil=gil, arg=core)

    def release(self, time: int, thread: int, gil: int = 0, *, forced: bool = False) -> Script:
        return self.add(Kind.RELEASE, time, thread, gil=gil, flags=RecordFlag.FORCED if forced else 0)

    def end(self, time: int, thread: int) -> Script:
        return self.add(Kind.THREAD_END, time, thread)

    def _place(self, semaphore: int, lock: int) -> int:
        if (semaphore, lock) not in self.places:
            self.places.append((semaphore, lock))
        return self.places.index((semaphore, lock))

    def slept(
        self, time: int, thread: int, semaphore: int, lock: int = 0, *, way: int = 0, held: Sequence[int] = ()
    ) -> Script:
        """It goes to sleep in a semaphore, for a `lock` if that is another; `held` are semaphores that it has."""
        self.held += [(time, thread, one) for one in held]
        flags = way | (Way.PARKED if lock else 0)
        return self.add(Kind.SLEPT, time, thread, arg=self._place(semaphore, lock), flags=flags)

    def awoke(self, time: int, thread: int, outcome: Outcome = Outcome.WOKEN) -> Script:
        return self.add(Kind.AWOKE, time, thread, arg=outcome, flags=outcome)

    def posted(self, time: int, thread: int, semaphore: int, *, late: bool = False) -> Script:
        return self.add(
            Kind.POSTED, time, thread, arg=self._place(semaphore, 0), flags=WakeFlag.LATE if late else WakeFlag(0)
        )

    def hold(self, start: int, end: int, thread: int, *, asked: int | None = None, forced: bool = False) -> Script:
        """A whole hold on GIL 0; `asked` is when it was requested, with a timed-out wait every 5 ms since."""
        if asked is not None:
            self.request(asked, thread)
            for time in range(asked + 5 * MS, start, 5 * MS):
                self.timeout(time, thread)
        return self.acquire(start, thread).release(end, thread, forced=forced)

    def events(self, lost: int = 0) -> ProcessEvents:
        rows = np.array(self.records, GIL_EVENT)
        return ProcessEvents(
            pid=self.pid,
            ppid=1,
            python=self.python,
            executable="/usr/bin/python3",
            cmdline="python app.py",
            start=self.start,
            threads=tuple(ThreadInfo(tid, f"thread-{i}") for i, tid in enumerate(self.tids)),
            gils=tuple(range(1, self.gils + 1)),
            events=rows[np.argsort(rows["time"], kind="stable")],
            lost=lost,
            note=self.note,
            places=np.array(self.places, PLACE),
            held=np.array(self.held, HELD),
        )


@dataclass
class Kernel:
    """Context switches, births and ends of threads, by tid."""

    pid: int = PID
    switches: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    tasks: list[tuple[int, int, int, int]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    lost: int = 0
    execs: list[Exec] = field(default_factory=list)

    def on(self, time: int, tid: int, core: int = 0) -> Kernel:
        self.switches.append((time, self.pid, tid, core, 1, 0))
        return self

    def off(self, time: int, tid: int, core: int = 0, *, preempted: bool = False) -> Kernel:
        self.switches.append((time, self.pid, tid, core, 0, int(preempted)))
        return self

    def run(self, start: int, end: int, tid: int, core: int = 0, *, preempted: bool = False) -> Kernel:
        return self.on(start, tid, core).off(end, tid, core, preempted=preempted)

    def born(self, time: int, tid: int) -> Kernel:
        self.tasks.append((time, self.pid, tid, 1))
        return self

    def ended(self, time: int, tid: int) -> Kernel:
        self.tasks.append((time, self.pid, tid, 0))
        return self

    def executed(self, time: int, name: str) -> Kernel:
        self.execs.append(Exec(time, self.pid, name))
        return self

    def events(self) -> SchedEvents:
        switches, tasks = np.array(self.switches, SWITCH), np.array(self.tasks, TASK)
        return SchedEvents(
            switches[np.argsort(switches["time"], kind="stable")],
            tasks[np.argsort(tasks["time"], kind="stable")],
            self.names,
            self.lost,
            tuple(sorted(self.execs)),
        )


def not_python(start: int, name: str, pid: int = PID) -> ProcessEvents:
    """What the preloaded library leaves of a program that is not Python."""
    script = Script((), pid, start, python="")
    return replace(script.events(), executable=f"/usr/bin/{name}", not_python=True)


def timeline(
    processes: Script | Sequence[ProcessEvents],
    kernel: Kernel | None = None,
    spans: Sequence[Spans] = (),
    *,
    start: int = 0,
    end: int = 0,
    collectors: Sequence[CollectorReport] = (),
) -> Timeline:
    """Build a timeline out of hand-written records."""
    return build_timeline(
        [processes.events()] if isinstance(processes, Script) else processes,
        kernel.events() if kernel else None,
        spans,
        start=start,
        end=end,
        realtime_offset=0,
        boottime_offset=0,
        clock_error_ns=7,
        machine={"sysname": "Linux", "cpus": 2},
        collectors=collectors,
    )


def process(script: Script, kernel: Kernel | None = None, *, end: int = 0) -> Process:
    """The one process of a timeline."""
    (only,) = timeline(script, kernel, end=end).processes
    return only


def rows(array: np.ndarray[Any, np.dtype[np.void]], *names: str) -> list[tuple[int, ...]]:
    """Some fields of an array as plain tuples."""
    return [tuple(int(row[name]) for name in names) for row in array]

"""Put the tracer to work in a running process, and take it out again."""

from __future__ import annotations

import contextlib
import os
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from giltrace.errors import TargetError
from giltrace.launch.attach.call import Visit
from giltrace.launch.attach.footprint import Footprint
from giltrace.launch.attach.heads import LEASE_NS
from giltrace.launch.attach.inherited import InheritedLock
from giltrace.launch.attach.moment import Kind, Moment, expected, moment
from giltrace.launch.attach.own_thread import OwnThread
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.ptrace import Denied, Gone, Late, Thread, read_memory, write_memory
from giltrace.launch.attach.refusals import Trace, active_trace, is_orphan
from giltrace.launch.attach.target import Target, object_at
from giltrace.process.elf import NotElf
from giltrace.process.ways import find_ways
from giltrace.recording import layout
from giltrace.recording.layout import Control

#: How long to look for a safe moment, how long a thread may take to stop, to start another, and that one for a call.
#: A start may have to wait its turn: a program that changes its ids all the time keeps libc's lock of threads.
SEARCH_SECONDS = _START_SECONDS = 5.0
_STOP_SECONDS = 1.0
CALL_SECONDS = 10.0

#: An orphaned tracer leaves within this, if the process uses a GIL at all.
_ANSWER_SECONDS = 0.3

#: Between two looks at all threads.
_LOOK_SECONDS = 0.003
#: Threads to stop per look at most: each loses some 100 us.
_STOPS_PER_LOOK = 4

#: Bytes of a thread's name.
_LONGEST_NAME = 88

_ALREADY_TRACED = 1
_PENDING = 0xFF


@dataclass(frozen=True)
class Plan:
    """What a recording is to be like: stacks of up to `depth` frames, and how much else that number says (`native`).

    With `ring` (bytes) the tracer keeps its newest events only. It tells of waits and holds that last longer than so
    many ticks, 0 for none. `names` are those of threads that run already, by what their C library knows them by.
    """

    depth: int
    ring: int = 0
    wait_limit: int = 0
    hold_limit: int = 0
    names: Sequence[tuple[int, str]] = ()


class AlreadyTraced(TargetError):
    """A tracer is at work in the process, or begins or ends just now."""


def inject(
    target: Target,
    library: str,
    folder: str,
    plan: Plan,
    footprint: Footprint,
    stopped: Callable[[], bool] = lambda: False,
) -> InheritedLock | None:
    """Load `library` into the process if it is not there, and start its tracer on `folder`: paths as seen there.

    `stopped` is asked whether to give up waiting for a moment, or for the process's loader. Returns what is to be
    looked after for a while, if the library was loaded. Raises `TargetError`, with the process as it was but for the
    library, which may be loaded and idle.
    """
    pid = target.process.pid
    ways = find_ways(pid, target.interpreter.loaded.start)
    data = [os.fsencode(library) + b"\0", os.fsencode(folder) + b"\0", bytes([_PENDING] * 4), ways]
    data += [name.encode(errors="replace")[:_LONGEST_NAME] + b"\0" for _, name in plan.names]
    # As much as can be is found out before a thread is stopped for it. Once loaded, the library stays.
    start, inherited = _loaded_at(target.process, library), None
    _refuse(target.filters.grew(), target)
    with visiting(target, data, footprint, stopped) as own:
        deadline = time.monotonic() + CALL_SECONDS
        if start is None:
            inherited = InheritedLock(target, own.inside, footprint)
            _load(target, own, inherited, deadline, stopped)
            start = _loaded_at(target.process, library)
        result = _PENDING
        if start is not None:
            namer = _function(pid, start, "giltrace_name_thread") if plan.names else 0
            for (thread, _), name in zip(plan.names, own.at[4:], strict=True):
                own.call(namer, thread, name, deadline=deadline)
            lease, tracer = time.monotonic_ns() + LEASE_NS, _function(pid, start, "giltrace_attach")
            own.call(tracer, own.at[1], plan.depth, lease, plan.ring, own.at[2], own.at[3], deadline=deadline)
            result = read_memory(pid, own.at[2], 1)[0]
            if not result and (plan.wait_limit or plan.hold_limit):
                limiter = _function(pid, start, "giltrace_limit")
                own.call(limiter, plan.wait_limit, plan.hold_limit, deadline=deadline)
    if start is None:
        raise TargetError(
            f"process {pid} could not load {library}",
            f"it may lack the memory or a permission for it; look from outside: giltrace attach --observe {pid}",
        )
    if result == _ALREADY_TRACED:
        raise AlreadyTraced(f"process {pid} is traced already", "end the other trace first")
    if result:
        raise TargetError(
            f"the tracer could not start in process {pid}: it could not write {folder}, or found no interpreter",
            "choose another place with -o",
        )
    return inherited


def _load(
    target: Target, own: OwnThread, inherited: InheritedLock, deadline: float, stopped: Callable[[], bool]
) -> None:
    """Have the library loaded, whose path is the first of the thread's data."""
    library = target.library
    try:
        own.call(library.dlopen, own.at[0], library.dlopen_mode, deadline=deadline, stopped=stopped)
    except Late:
        if stopped():
            raise TargetError("interrupted before anything was changed") from None
        pid = target.process.pid
        raise TargetError(
            f"process {pid} has been loading another library for {CALL_SECONDS:.0f} s, and takes one after the other: "
            "a thread of it is in the other one's constructor",
            f"try again when that has ended, or look from outside: giltrace attach --observe {pid}",
        ) from None
    finally:
        inherited.look()


def eject(target: Target, footprint: Footprint) -> None:
    """Take the tracer out through a safe moment of some thread. Raises `TargetError` if there is none."""
    pid = target.process.pid
    # Several, where each attach had to bring its own: stopping those that are idle does nothing.
    starts = [m.start for m in target.process.maps() if m.offset == 0 and is_tracer(m.path)]
    stops = [_function(pid, start, "giltrace_stop") for start in starts]
    if stops:
        with visiting(target, [], footprint) as own:
            for stop in stops:
                own.call(stop, deadline=time.monotonic() + CALL_SECONDS)


def end_orphan(target: Target, folder: str = "") -> bool:
    """End a trace that nobody listens to: a recorder that was killed has left its tracer at work.

    One into `folder`, as the process sees it, is such: it is the caller's own, and who wrote to one of that name before
    has lost it. Returns whether there is none that somebody listens to; the orphan may be there still if all threads
    are in native code.
    """
    trace = active_trace(target)
    if trace is None:
        return True
    if trace.folder != folder and not is_orphan(target.process, trace):
        return False
    _end(target, trace)
    return True


def _end(target: Target, trace: Trace) -> None:
    control = layout.HEADER.fields["control"][1] if layout.HEADER.fields else 0
    try:
        write_memory(target.process.pid, trace.head + int(control), struct.pack("<I", Control.CONTROL_STOP))
    except (Gone, OSError):
        return  # it has ended meanwhile
    deadline = time.monotonic() + _ANSWER_SECONDS
    while time.monotonic() < deadline:
        if active_trace(target) is None:
            return
        time.sleep(_LOOK_SECONDS)
    with contextlib.suppress(TargetError):
        eject(target, Footprint())


@contextlib.contextmanager
def visiting(
    target: Target, data: list[bytes], footprint: Footprint, stopped: Callable[[], bool] = lambda: False
) -> Iterator[OwnThread]:
    """Have a thread of our own in the process for the time of the block; `data` is what its calls will point to.

    A thread of the process starts it, stopped for that at a safe moment. Raises `TargetError` if no such moment comes,
    or the process ends.
    """
    pid = target.process.pid
    try:
        begin = time.monotonic_ns()
        thread = _start_thread(target, footprint, stopped)
        try:
            try:
                own = OwnThread(target, thread, data)
            except BaseException:
                thread.detach()
                raise
            try:
                yield own
            finally:
                own.leave()
        finally:
            footprint.threads.append((thread.tid, begin, time.monotonic_ns()))
    except Gone:
        raise TargetError(f"process {pid} ended while it was being attached to") from None
    except Denied:
        raise TargetError(f"the kernel does not let you trace process {pid}", f"giltrace doctor --pid {pid}") from None
    except Late:
        raise TargetError(
            f"a thread of process {pid} did not finish in time what it was made to do; it goes on by itself",
            f"look at the process from outside: giltrace attach --observe {pid}",
        ) from None
    except OSError as error:
        raise TargetError(f"process {pid} could not be changed: {error}", f"giltrace doctor --pid {pid}") from None


def _refuse(filtered: bool, target: Target) -> None:
    if filtered:
        raise TargetError(
            f"process {target.process.pid} has just put a seccomp filter on, which may kill it for this",
            f"look at it from outside: giltrace attach --observe {target.process.pid}",
        )


def _start_thread(target: Target, footprint: Footprint, stopped: Callable[[], bool]) -> Thread:
    """Stop a thread, have it start one of ours, and let it go on."""
    own = None
    with contextlib.ExitStack() as unless_done, _stopped(target, footprint, stopped) as (thread, found):
        _refuse(target.filters.grew_at(thread.tid), target)
        visit = Visit(target, thread, found)
        try:
            own = visit.start_thread(target.library.sched_yield, time.monotonic() + _START_SECONDS)
            unless_done.callback(own.detach if own is not None else lambda: None)
        finally:
            visit.leave()
        unless_done.pop_all()
    if own is None:
        pid = target.process.pid
        raise TargetError(
            f"process {pid} cannot start a thread: a limit on processes or memory is reached",
            f"look at it from outside: giltrace attach --observe {pid}",
        )
    return own


@contextlib.contextmanager
def _stopped(target: Target, footprint: Footprint, stopped: Callable[[], bool]) -> Iterator[tuple[Thread, Moment]]:
    """Stop one thread after the other until one is at a safe moment."""
    deadline = time.monotonic() + SEARCH_SECONDS
    while not stopped():
        for tid in _candidates(target)[:_STOPS_PER_LOOK]:
            with _Stop(target, tid, footprint) as stop:
                if stop.moment is not None:
                    yield stop.thread, stop.moment
                    return
        if not target.process.exists:
            raise Gone
        if time.monotonic() > deadline:
            raise TargetError(
                f"no thread of process {target.process.pid} came to a safe moment within {SEARCH_SECONDS:.0f} s: all "
                "are busy in native code",
                f"try again, or look from outside: giltrace attach --observe {target.process.pid}",
            )
        time.sleep(_LOOK_SECONDS)
    raise TargetError("interrupted before anything was changed")


class _Stop:
    """A thread, stopped for the time of the block, and its `moment` if that is safe; None also if it has ended."""

    def __init__(self, target: Target, tid: int, footprint: Footprint) -> None:
        self._footprint = footprint
        self.begin = time.monotonic_ns()
        self.moment: Moment | None = None
        try:
            self.thread = Thread(tid)
        except Gone:
            return
        try:
            self.thread.stop(_STOP_SECONDS)
            self.moment = moment(target, tid, self.thread.registers())
        except Gone:
            return
        except BaseException:
            self.thread.detach()
            raise

    def __enter__(self) -> _Stop:
        return self

    def __exit__(self, *_: object) -> None:
        if hasattr(self, "thread"):
            self.thread.detach()
            self._footprint.stops.append((self.thread.tid, self.begin, time.monotonic_ns()))


def _candidates(target: Target) -> list[int]:
    """Threads that seem to be at a safe moment, the best first."""
    found: list[tuple[Kind, bool, int]] = []
    for tid in target.process.tids():
        try:
            kind = expected(target, tid)
        except (OSError, KeyError):
            continue
        # Python's signals are for the main thread: the one that should be kept from nothing.
        is_main = tid == target.process.pid
        if kind is not None:
            found.append((kind, is_main, tid))
        if kind is Kind.RESTARTS and not is_main:
            break
    return [tid for _, _, tid in sorted(found)]


def _loaded_at(process: Process, path: str) -> int | None:
    """Where the library at `path` is mapped, if it is the file that has that path now."""
    try:
        file = os.stat(process.path_here(path))
        mapped = [m for m in process.maps() if m.path == path and m.inode == file.st_ino and m.offset == 0]
    except OSError:
        return None
    return mapped[0].start if mapped else None


def _function(pid: int, start: int, name: str) -> int:
    """Where `name` is in the tracer library that is mapped at `start`. Raises `TargetError`."""
    with contextlib.suppress(NotElf):
        address = object_at(pid, start).address(name)
        if address is not None:
            return address
    raise TargetError(f"what process {pid} has loaded as giltrace's library is none", f"giltrace doctor --pid {pid}")


def is_tracer(path: str) -> bool:
    """Tell by its path whether a file is a tracer library."""
    return path.rpartition("/")[2].startswith("libgiltrace")


def is_replaced(process: Process, path: str) -> bool:
    """Tell whether the process has loaded another file from `path` than is there now; that one hides the new one."""
    return _loaded_at(process, path) is None and any(m.path in (path, path + " (deleted)") for m in process.maps())

"""Processes that count, to be read from outside meanwhile: a command started for it, a process that runs already."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from giltrace import native
from giltrace.collectors.gil import GilCollector
from giltrace.launch.attach import refusals
from giltrace.launch.attach.heads import marked_as_recorded
from giltrace.launch.attach.holders import gil_holders
from giltrace.launch.attach.inject import Plan
from giltrace.launch.attach.names import known_threads, names_to_tell
from giltrace.launch.attach.place import find_place
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.session import alive
from giltrace.launch.attach.tracer import AttachedTracer
from giltrace.launch.child import Child
from giltrace.launch.count_folder import made_for_counts
from giltrace.launch.live import Output, ended_how, in_background, kept_up, titled
from giltrace.launch.target import Target
from giltrace.process.folder import sees_the_same
from giltrace.views.ending import Ending

#: What a process that counts has mapped.
_PAGE = re.compile(r"(/.*)/count-\d+-\d+\.bin")
_POLL_SECONDS = 0.05


def _at_once(work: Callable[[], Any]) -> Any:
    return work()


def _nothing() -> None:
    """It has been started."""


def _itself(pid: int) -> int | None:
    return pid


@dataclass(frozen=True)
class Holder:
    """Who had a GIL when the tracer had come, by the ids that process and thread know themselves."""

    pid: int
    tid: int  #: 0: nobody
    name: str
    mutex: int  #: the address of the GIL's


@dataclass
class Counted:
    """Processes that count in `folder`; `title` names them to people, and `start` lets them begin.

    `wait` returns at an instant (as `time.monotonic`), or before that once all is over; `over` tells whether it is.
    Files are read by `do`, with the rights of whoever writes them, and process ids made ours by `pid_here`. If the
    folder is `shared`, others read and tidy up there too. `holders` tell who had each GIL when counting began, the main
    interpreter's first; there are none where that is not known.
    """

    folder: Path
    title: str
    wait: Callable[[float], None]
    over: Callable[[], str | None]  #: what there is to be said of it
    do: Callable[[Callable[[], Any]], Any] = _at_once
    start: Callable[[], None] = _nothing
    pid_here: Callable[[int], int | None] = _itself
    shared: bool = False
    holders: tuple[Holder, ...] = ()
    status: int | None = field(default=None)  #: that the command has ended with; negative for a signal


def counting_environment(folder: Path) -> dict[str, str]:
    """The environment in which every Python process counts into `folder`. Raises `TargetError` where none can."""
    collector = GilCollector(native.COUNTING_DEPTH)
    collector.refuse()
    env = dict(os.environ)
    collector.prepare(folder, env)
    return {**env, "GILTRACE_COUNT": "only"}


@contextlib.contextmanager
def counted_command(target: Target) -> Iterator[Counted]:
    """Run `target`, as from a shell: its input, output and signals are its own. Raises `TargetError`.

    All Python processes below it count. The block is left only when the command has ended; one that was not started
    never begins.
    """
    with made_for_counts() as folder:
        child = Child(target.argv, counting_environment(folder))
        at_the_gate, runs = True, False

        def start() -> None:
            nonlocal at_the_gate, runs
            at_the_gate = False
            child.release()
            runs = True

        def wait(until: float) -> None:
            while counted.status is None and (left := until - time.monotonic()) > 0:
                counted.status = child.wait(min(left, _POLL_SECONDS))

        counted = Counted(folder, titled(target.argv), wait, lambda: ended_how(counted.status))
        counted.start = start
        try:
            yield counted
        finally:
            if at_the_gate:
                child.cancel()
            # What went wrong here is no reason to end the command.
            while runs and counted.status is None:
                wait(time.monotonic() + 1.0)


@contextlib.contextmanager
def counted_in_background(target: Target, output: Output, ending: Ending) -> Iterator[Counted]:
    """Run `target` without a terminal, its output kept from the screen; it is ended with the block.

    Raises `TargetError`.
    """
    with made_for_counts() as folder, in_background(target, counting_environment(folder), output) as process:

        def over() -> str | None:
            counted.status = process.poll()
            return ended_how(counted.status)

        counted = Counted(folder, titled(target.argv), _waiting(over, ending), over)
        yield counted


@contextlib.contextmanager
def counted_process(pid: int, ending: Ending, *, allow_seccomp: bool = False) -> Iterator[Counted]:
    """Let process `pid`, and what it forks, count while the block runs; or read what it counts already.

    Raises `TargetError` where that is not possible, before anything was done to the process.
    """
    process = refusals.find(pid)
    with alive(process) as lives:
        folder = _counts_in(process)

        def over() -> str | None:
            if folder is not None and not folder.is_dir():
                return "who had it count has ended that"
            return None if lives() else "the process has ended"

        title = titled(process.command())
        wait = _waiting(over, ending)
        if folder is not None:
            yield Counted(folder, title, wait, over, shared=True)
            return
        with _attached(process, ending, allow_seccomp=allow_seccomp) as counted:
            counted.title, counted.wait, counted.over = title, wait, over
            yield counted


@contextlib.contextmanager
def _attached(process: Process, ending: Ending, *, allow_seccomp: bool) -> Iterator[Counted]:
    GilCollector(native.COUNTING_DEPTH).refuse()
    target = refusals.check_exact(process, allow_seccomp=allow_seccomp)
    with made_for_counts() as folder, marked_as_recorded(folder):
        place = find_place(target, folder)
        try:
            plan = Plan(native.counting(), names=names_to_tell(process))
            tracer = AttachedTracer(target, place, plan, lambda: ending.signal is not None)
            files = folder if place.is_direct else place.files.path
            counted = Counted(files, "", time.sleep, lambda: None, place.deputy.do)
            try:
                counted.pid_here, counted.holders = _ids_of(process), _holders(process)
                with kept_up(tracer.poll):
                    yield counted
            finally:
                tracer.stop()
        finally:
            place.abandon()


def _holders(process: Process) -> tuple[Holder, ...]:
    """Who has the GILs of a process now. A thread that has ended meanwhile has none."""
    found = gil_holders(process)
    ask = any(tid not in (0, process.pid) for _, tid, _ in found)
    try:
        pid = process.pid_inside
        names = {tid: one.name for tid, one in known_threads(process).items()} if ask else {process.pid: "MainThread"}
    except OSError:
        return ()  # it ends
    inside = {}
    for tid in names.keys() & {tid for _, tid, _ in found}:
        with contextlib.suppress(OSError):
            inside[tid] = process.ids(tid)[1]
    return tuple(Holder(pid, inside.get(tid, 0), names[tid] if tid in inside else "", mutex) for _, tid, mutex in found)


def counts_already(process: Process) -> list[str]:
    """The folders, as the process sees them, in which it counts; none that may not be looked into."""
    try:
        return list(dict.fromkeys(found[1] for one in process.maps() if (found := _PAGE.fullmatch(one.path))))
    except OSError:
        return []


def _counts_in(process: Process) -> Path | None:
    """Where the process counts already, if that is a folder of ours."""
    for path in counts_already(process):
        with contextlib.suppress(OSError):
            if sees_the_same(process.pid) and os.stat(path).st_uid == os.geteuid():
                return Path(path)
    return None


def _waiting(over: Callable[[], str | None], ending: Ending) -> Callable[[float], None]:
    def wait(until: float) -> None:
        while ending.signal is None and over() is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _POLL_SECONDS))

    return wait


def _ids_of(process: Process) -> Callable[[int], int | None]:
    """What tells the ids here of processes in the pid namespace of this one."""
    try:
        if process.shares("pid"):
            return _itself
        namespace = os.stat(f"/proc/{process.pid}/ns/pid")
    except OSError:
        return _itself
    known = {process.pid_inside: process.pid}

    def is_it(pid: int, inside: int) -> bool:
        with contextlib.suppress(OSError):
            its = os.stat(f"/proc/{pid}/ns/pid")
            same = (its.st_dev, its.st_ino) == (namespace.st_dev, namespace.st_ino)
            return same and Process(pid).pid_inside == inside
        return False

    def here(inside: int) -> int | None:
        if inside not in known or not is_it(known[inside], inside):
            others = (int(name) for name in os.listdir("/proc") if name.isdecimal())
            known[inside] = next((pid for pid in others if is_it(pid, inside)), 0)
        return known[inside] or None

    return here

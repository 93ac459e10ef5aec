"""The tracer in a running process: put to work, kept at work, and taken out."""

from __future__ import annotations

import time
from collections.abc import Callable

from giltrace.errors import TargetError
from giltrace.launch.attach import inject
from giltrace.launch.attach.footprint import Footprint
from giltrace.launch.attach.heads import RENEW_NS, Head, Heads
from giltrace.launch.attach.place import Place
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.target import Target

#: A process that uses a GIL answers at once; one that does not must be asked through one of its threads.
_ANSWER_SECONDS = 0.3
_LOOK_SECONDS = 0.002


class AttachedTracer:
    """The tracer at work in `target` and, after a fork, in its children, until `stop`. Raises `TargetError`.

    `footprint` tells what was done to the process for it.
    """

    def __init__(self, target: Target, place: Place, depth: int, stopped: Callable[[], bool], ring: int = 0) -> None:
        self.footprint = Footprint()
        self._target, self._place = target, place
        self._heads = Heads(place.files)
        self._inside = target.process.pid_inside
        try:
            inject.inject(target, place.library, place.folder, depth, self.footprint, stopped, ring)
        except TargetError:
            # A process that ended as soon as its tracer was at work has been recorded to its end.
            if not any(head.at_work for head in self._heads.look()) or _wait_while(lambda: target.process.exists):
                raise
        self._renew_ns = 0
        self.poll()

    def poll(self) -> None:
        """Tell the tracer that somebody listens, once a second; to be called more often."""
        if time.monotonic_ns() >= self._renew_ns:
            for head in self._heads.look():
                head.renew()
            self._renew_ns = time.monotonic_ns() + RENEW_NS

    def stop(self) -> list[str]:
        """Take it out of all processes. Returns what is to be said about those where it could not be done at once."""
        for head in self._heads.look():
            head.ask_to_stop()
        _wait_while(lambda: bool(self._left()))
        pids = {self._pid_here(head) for head in self._left()}
        said = [self._eject(pid) for pid in pids if pid is not None]
        return [line for line in said if line]

    def _left(self) -> list[Head]:
        """The heads of processes that live and have not answered yet."""
        pids = ((head, self._pid_here(head)) for head in self._heads.look() if head.at_work)
        return [head for head, pid in pids if pid is not None and Process(pid).exists]

    def _pid_here(self, head: Head) -> int | None:
        """The id here of the process that a head is of; None if that is not known."""
        if head.process == self._inside:
            return self._target.process.pid
        # A forked child. In a pid namespace of its own its id may be another's here: it ends its tracer by itself.
        return head.process if self._target.process.shares("pid") else None

    def _eject(self, pid: int) -> str:
        try:
            target = self._target if pid == self._target.process.pid else Target(Process(pid))
            inject.eject(target, self.footprint)
        except (TargetError, OSError):
            return f"process {pid} sleeps: the tracer leaves it at its next use of the GIL"
        return ""


def _wait_while(condition: Callable[[], bool]) -> bool:
    """Wait until the condition is no more, as long as an answer takes. Tells whether it still is."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    while (still := condition()) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return still

"""The tracer in a running process: put to work, kept at work, and taken out."""

from __future__ import annotations

import time
from collections.abc import Callable

from giltrace.errors import TargetError
from giltrace.launch.attach import inject
from giltrace.launch.attach.filters import Filters
from giltrace.launch.attach.footprint import Footprint
from giltrace.launch.attach.heads import RENEW_NS, Head, Heads
from giltrace.launch.attach.inherited import InheritedLock
from giltrace.launch.attach.inject import Plan
from giltrace.launch.attach.place import Place
from giltrace.launch.attach.process import Process
from giltrace.launch.attach.ptrace import Denied, Gone
from giltrace.launch.attach.sparing import Sparing
from giltrace.launch.attach.target import Target
from giltrace.recording.layout import Control

#: A process that uses a GIL answers at once; one that does not must be asked through one of its threads.
_ANSWER_SECONDS = 0.3
_LOOK_SECONDS = 0.002
#: What the thread of a recorder that was killed takes at most until its trace can be seen, and ended.
_ORPHAN_SECONDS = 5.0
_AGAIN_SECONDS = 0.05

_STAYS = "process {pid} has put a seccomp filter on: the tracer's hooks stay in it, idle"


class AttachedTracer:
    """The tracer at work in `target` and, after a fork, in its children, until `stop`. Raises `TargetError`.

    `footprint` tells what was done to the process for it.
    """

    def __init__(
        self,
        target: Target,
        place: Place,
        plan: Plan,
        stopped: Callable[[], bool],
    ) -> None:
        self.footprint = Footprint()
        self._target, self._place = target, place
        self._heads = Heads(place.files)
        self._inside, self._shares_ids = target.process.pid_inside, target.process.shares("pid")
        self._watched: dict[Head, Filters | None] = {}
        self._look_at_some = Sparing(lambda: self._look_for_filters(self._heads.look(), Filters.grew_at_some))
        self._inherited: InheritedLock | None = None
        try:
            self._inherited = self._inject(plan, stopped)
        except TargetError:
            # A process that ended as soon as its tracer was at work has been recorded to its end.
            if not any(head.at_work for head in self._heads.look()) or _wait_while(lambda: target.process.exists):
                raise
        self._renew_ns = 0
        self._look_for_filters(self._heads.look(), Filters.grew)
        self.poll()

    def _inject(self, plan: Plan, stopped: Callable[[], bool]) -> InheritedLock | None:
        """Put it to work, in place of one whose recorder was killed: also where that one's thread just begins it."""
        target, folder = self._target, self._place.folder
        deadline = time.monotonic() + _ORPHAN_SECONDS
        while True:
            free = inject.end_orphan(Target(target.process, target.filters), folder)
            try:
                return inject.inject(target, self._place.library, folder, plan, self.footprint, stopped)
            except inject.AlreadyTraced:
                if not free or time.monotonic() >= deadline:
                    raise
                time.sleep(_AGAIN_SECONDS)

    def poll(self) -> None:
        """Tell the tracer of seccomp filters, and once a second that somebody listens; to be called more often."""
        self._look_at_children()
        self._look_at_some()
        if time.monotonic_ns() >= self._renew_ns:
            for head in self._heads.look():
                head.renew()
            self._renew_ns = time.monotonic_ns() + RENEW_NS

    def _look_at_children(self) -> None:
        if self._inherited is not None:
            self._inherited.look()

    def _look_for_filters(self, heads: list[Head], grew: Callable[[Filters], bool]) -> None:
        """Most are seen by the tracer itself, before they are there (native/tracer/confine.c)."""
        for head in heads:
            if head not in self._watched:
                pid = self._pid_here(head)
                self._watched[head] = None if pid is None else self._filters(pid)
            filters = self._watched[head]
            if filters is not None and grew(filters):
                head.say(Control.CONTROL_CONFINED)
                self._watched[head] = None

    def _filters(self, pid: int) -> Filters:
        known = self._target.filters
        return known if pid == self._target.process.pid else Filters(Process(pid), known.before)

    def stop(self) -> list[str]:
        """Take it out of all processes. Returns what is to be said about those where that could not be done."""
        self._look_at_children()
        heads = self._heads.look()
        self._look_for_filters(heads, Filters.grew)
        for head in heads:
            head.say(Control.CONTROL_STOP)
        _wait_while(lambda: bool(self._left()))
        left = {self._pid_here(head) for head in self._left()}
        confined = {self._pid_here(head) for head in heads if head.confined}
        said = [self._eject(pid) for pid in left if pid is not None]
        said += [_STAYS.format(pid=pid) for pid in confined - left if pid is not None and Process(pid).exists]
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
        return head.process if self._shares_ids else None

    def _eject(self, pid: int) -> str:
        filters = self._filters(pid)
        if filters.grew():
            return _STAYS.format(pid=pid)
        try:
            target = self._target if pid == self._target.process.pid else Target(Process(pid), filters)
            inject.eject(target, self.footprint)
        except (TargetError, Gone, Denied, OSError):
            if Process(pid).exists:
                return f"process {pid} sleeps: the tracer leaves it at its next use of the GIL"
        return ""


def _wait_while(condition: Callable[[], bool]) -> bool:
    """Wait until the condition is no more, as long as an answer takes. Tells whether it still is."""
    deadline = time.monotonic() + _ANSWER_SECONDS
    while (still := condition()) and time.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)
    return still

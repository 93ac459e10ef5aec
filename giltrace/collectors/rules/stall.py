"""Dump when an event loop does not get back to its selector for longer than a limit.

A loop is in its selector from the release whose innermost frames are the selector's up to the thread's next request or
acquire. It is busy from then on until its next release there; what it does meanwhile is its callbacks'.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from giltrace.analysis.findings.stall import Look
from giltrace.analysis.measure.loops import may_wait, runs, selector_of
from giltrace.collectors.rules.base import PATIENCE_NS, Caught, Followed, Following, ended
from giltrace.collectors.rules.outside import Outside
from giltrace.recording.events import Array
from giltrace.recording.layout import Kind, RecordFlag
from giltrace.recording.live import Update
from giltrace.recording.live_file import LiveFile
from giltrace.recording.trigger import Trigger

_TURNS = (Kind.REQUEST, Kind.ACQUIRE, Kind.RELEASE)
#: So many stacks and looks of a loop that is busy are kept, and so many stacks are looked at for what it runs.
_MOST_STACKS, _MOST_LOOKS = 64, 64


@dataclass
class _Loop:
    """A thread that runs a loop of this name: busy `since` then, or in its selector (None).

    `stacks` are where it has given the GIL up since, the `newest` of them last; `watched`: it was looked at, or tried
    to; `told`: this stall is. `outermost` is the function and the file that its stacks begin with.
    """

    name: str
    tid: int
    outermost: tuple[str, str] = ("", "")
    newest: int = 0
    since: int | None = None
    stacks: set[int] = field(default_factory=set)
    looks: list[Look] = field(default_factory=list)
    watched: bool = False
    told: bool = False

    def begins(self, since: int | None) -> None:
        """It is busy from then on, or in its selector."""
        self.since, self.stacks, self.looks, self.newest = since, set(), [], 0
        self.watched = self.told = False


@dataclass
class _Process(Followed):
    loops: dict[int, _Loop] = field(default_factory=dict)
    #: By the tracer's number of a stack, the loop that waits there.
    names: dict[int, str] = field(default_factory=dict)
    candidates: list[bool] = field(default_factory=list)


class Stall(Following[_Process]):
    """``stall>100ms``: a loop of asyncio, uvloop, trio, gevent or Tornado was busy for longer."""

    kind = "stall"

    def _meet(self, update: Update) -> _Process:
        return _Process()

    def _follow(self, process: _Process, update: Update, until: int, outside: Outside) -> list[Caught]:
        file = update.file
        turns = update.events.compress(np.isin(update.events["kind"], _TURNS))
        found: list[Caught] = []
        if file.stacks is not None and len(turns):
            waits = _in_selector(process, file, turns, outside)
            threads = turns["thread"]
            for thread in set(np.unique(threads[waits]).tolist()) | process.loops.keys() & set(
                np.unique(threads).tolist()
            ):
                mine = threads == thread
                found += self._follow_thread(update, process, thread, turns.compress(mine), waits[mine], outside)
        for thread in ended(update):
            process.loops.pop(thread, None)
        if update.ended:
            return found
        for thread, loop in process.loops.items():
            found += self._goes_on(update, thread, loop, until, outside)
        return found

    def _follow_thread(
        self,
        update: Update,
        process: _Process,
        thread: int,
        rows: Array,
        waits: npt.NDArray[np.bool_],
        outside: Outside,
    ) -> list[Caught]:
        """Follow one thread by its new turns, and where they are releases in the selector."""
        ends = np.flatnonzero(waits)
        loop = process.loops.get(thread)
        if loop is None:
            # What it did before it was known to run a loop is not known to be a loop's.
            selector = int(rows["stack"][ends[0]])
            loop = process.loops[thread] = _Loop(process.names[selector], process.tids.get(thread, 0))
            if update.file.stacks is not None:
                loop.outermost = update.file.stacks.stack(selector)[-1][:2]
            rows, ends = rows[ends[0] :], ends - ends[0]
        elif loop.since is None:
            loop.begins(int(rows["time"][0]))
        found: list[Caught] = []
        begin = 0
        for end in ends.tolist():
            if loop.since is not None:
                done = int(rows["time"][end])
                if done - loop.since > self.limit_ns:
                    self._note(loop, rows[begin:end])
                    if not loop.told and self._is_of_loop(update.file, loop, ended=True):
                        found.append(self._caught(update, thread, loop, done, outside))
                loop.name = process.names[int(rows["stack"][end])]
            begin = end + 1
            loop.begins(int(rows["time"][begin]) if begin < len(rows) else None)
        self._note(loop, rows[begin:])
        return found

    @staticmethod
    def _note(loop: _Loop, rows: Array) -> None:
        stacks = rows["stack"][(rows["kind"] == Kind.RELEASE) & (rows["stack"] > 0)]
        if len(stacks) and len(loop.stacks) < _MOST_STACKS:
            loop.stacks |= set(np.unique(stacks)[:_MOST_STACKS].tolist())
        if len(stacks):
            loop.newest = int(stacks[-1])

    def _goes_on(self, update: Update, thread: int, loop: _Loop, until: int, outside: Outside) -> list[Caught]:
        """Look at a loop that is busy for long, and tell of it if that does not end."""
        if loop.since is None or loop.told or until - loop.since < self.limit_ns // 2:
            return []
        loop.watched = True
        if len(loop.looks) < _MOST_LOOKS:
            looks = outside.look(update.file, loop.tid)
            if looks and not selector_of([frame[:2] for frame in looks[0].frames]):
                loop.looks += looks
        if until - loop.since < max(2 * self.limit_ns, PATIENCE_NS):
            return []
        if not self._is_of_loop(update.file, loop, ended=False):
            return []
        loop.told = True
        return [self._caught(update, thread, loop, until, outside, goes_on=True)]

    @staticmethod
    def _is_of_loop(file: LiveFile, loop: _Loop, *, ended: bool) -> bool:
        """Whether it is the loop that kept the thread busy, and not what came after it.

        All that a loop runs has its frames below, but for greenlets. Where a stack begins as the loop's does and has
        them not, the loop has been left, as where the thread has no frames at all. Without any stack it is one that
        came back to the selector, if it has `ended`; else what was seen last has to be the loop's.
        """
        mine = [look.frames for look in loop.looks if look.tid == loop.tid]
        if not ended and mine and not mine[-1]:
            return False  # no frame is left where the interpreter is being ended
        mine = [frames for frames in mine if frames]
        newest = mine[-1:]
        if file.stacks is not None:
            mine += [frames for number in loop.stacks if (frames := file.stacks.stack(number))]
            newest = newest or [file.stacks.stack(loop.newest)]
        within = [runs([frame[:2] for frame in frames], loop.name) for frames in mine]
        if any(not runs_ and frames[-1][:2] == loop.outermost for runs_, frames in zip(within, mine, strict=True)):
            return False
        if not ended:
            return runs([frame[:2] for frame in newest[0]], loop.name) if newest and newest[0] else False
        return any(within) or not within

    def _caught(
        self, update: Update, thread: int, loop: _Loop, end: int, outside: Outside, *, goes_on: bool = False
    ) -> Caught:
        assert loop.since is not None
        task = outside.task(loop.tid, loop.since, end)
        trigger = Trigger(self.kind, self.text, end, end - loop.since, update.file.pid, loop.tid, task=task)
        return Caught(trigger, f"the {loop.name} loop", goes_on, tuple(loop.looks), late=not loop.watched)


def _in_selector(process: _Process, file: LiveFile, turns: Array, outside: Outside) -> npt.NDArray[np.bool_]:
    """Which turns are releases of a loop in its selector; learns of new stacks."""
    stacks = file.stacks
    assert stacks is not None
    stacks.update()
    process.candidates += [may_wait(leaf[:2]) for leaf, _ in stacks.tops[len(process.candidates) :]]
    result = np.zeros(len(turns), np.bool_)
    released = np.flatnonzero(
        (turns["kind"] == Kind.RELEASE) & (turns["stack"] > 0) & (turns["flags"] & np.uint8(RecordFlag.FORCED) == 0)
    )
    number = turns["stack"][released]
    maybe = np.append(np.array(process.candidates, np.bool_), False)[stacks.top(number)]
    used, of = np.unique(number[maybe], return_inverse=True)
    for each in used.tolist():
        if each not in process.names:
            name = selector_of([frame[:2] for frame in stacks.stack(each)])
            if name == "uvloop" and not outside.has_loaded(file.pid, "/uvloop/"):
                name = ""
            process.names[each] = name
    named = np.array([bool(process.names[each]) for each in used.tolist()], np.bool_)
    result[released[maybe]] = named[of.ravel()] if len(used) else False
    return result

"""What removing the GIL could bring at most: the recording replayed with cores as the only limit.

By how much that beats what was measured is at least 1, at most the number of cores, and never less on more of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np

from giltrace.analysis.measure import usage
from giltrace.analysis.measure.off_gil import off_gil
from giltrace.analysis.replay.crews import Crew, fed_crews, lock_crews, shared, without_work
from giltrace.analysis.replay.native_locks import Wakes, native_wakes
from giltrace.analysis.replay.program import Program, read_program
from giltrace.analysis.results import WhatIf, WhatIfPoint
from giltrace.timeline.model import Cores, Process, State

#: A thread has its core for at least this long while others want one; longer recordings have longer turns.
TURN_NS = 1_000_000
_MOST_TURNS = 20_000
#: Up to so many cores every number is replayed, beyond them each doubling.
EVERY_CORE = 8

_BEGIN, _WOKEN, _RAN = range(3)


def what_if(process: Process, machine: int, native: Wakes | None = None) -> WhatIf:
    """Replay a process without a GIL on 1 core up to those that it had, and on the `machine`'s if that has more.

    Without a number (0) the machine has as many as the threads were seen on. What the process had is in its recording;
    else it had them all.

    Kept are each thread's order of work, its CPU demand and the time that it was blocked; a thread that started or
    joined another one does so again. But who takes jobs from a queue may do more or fewer of them. Waits for the GIL
    fall away. It is a bound: locks and queues between threads, caches and memory would cost something. The
    `native_wakes` are worked out if they are not given.
    """
    machine = max(machine, 1) if machine else int(process.runs["core"].max(initial=0)) + 1
    had = process.cores or Cores(machine)
    cores = min(had.at_once, machine)
    native = native or native_wakes(off_gil(process))
    program, other = (read_program(process, cores, native, woken=woken) for woken in (False, True))
    bound = _Bound(process, cores, program)
    # Where no delay is one that a lock written in C may have made, that is the same program.
    woken = bound if np.array_equal(program.awaits, other.awaits) else _Bound(process, cores, other)
    points = bound.points(_numbers(cores), had.quota)
    limited = cores < machine or (had.quota is not None and had.quota < cores)
    last = points[-1]
    return WhatIf(
        cores,
        bound.measured,
        last.makespan_ns,
        last.speedup_bound,
        tuple(points),
        had.quota if had.quota is not None and had.quota < had.cpus else None,
        bound.points([*_numbers(cores), machine])[-1] if limited else None,
        max(last.speedup_bound, woken.points([cores], had.quota)[0].speedup_bound),
    )


def without_lock(process: Process, cores: int, native: Wakes, locks: tuple[int, ...]) -> WhatIfPoint:
    """Replay a process on so many cores without some of its locks, given by their numbers, and with its GIL, if any.

    All else that threads waited for each other for stays, and what was done with a GIL is done by one at a time. Those
    that waited in the locks may share their jobs anew: who had such a lock may have taken the next one as well.
    """
    program = read_program(process, cores, native, without=locks)
    held = int(usage.state_sums(process)[:, State.HOLDING_RUNNING].sum())
    if not process.has_sched:
        held = int(usage.sum_by_thread(process, process.holds).sum())
    measured = process.end - process.start
    least = replay_shared(program, cores, lock_crews(process, program, locks))
    makespan = min(max(least, held if process.gils == 1 else 0), measured)
    return WhatIfPoint(cores, makespan, measured / makespan if makespan else 1.0)


class _Bound:
    """How long a process that had `cores` takes without a GIL."""

    def __init__(self, process: Process, cores: int, program: Program) -> None:
        self.measured = process.end - process.start
        self._had = cores
        self._program = program
        self._crews = fed_crews(process)
        self._threads = max(len(process.threads), 1)
        self._known: dict[int, int] = {}
        self._unlimited = self._replayed(self._threads)
        # Of time on a core only what the process used counts against a quota.
        ran = usage.state_sums(process)[:, [State.HOLDING_RUNNING, State.OFF_RUNNING]]
        self._ran = int(ran.sum() if process.has_sched else self._program.cpu.sum())

    def points(self, numbers: Sequence[int], quota: float | None = None) -> list[WhatIfPoint]:
        """The bounds on each of some numbers of cores, in ascending order, of whose time `quota` may be used."""
        least = int(self._ran / quota) if quota is not None else 0
        points: list[WhatIfPoint] = []
        # Who does not need a core may leave it: nothing takes longer on more of them.
        best = self._replayed(1)
        for number in numbers:
            if best > self._unlimited:
                best = min(best, self._replayed(number))
            points.append(self._point(number, max(best, least)))
        return points

    def _replayed(self, cores: int) -> int:
        cores = min(cores, self._threads)
        if cores not in self._known:
            self._known[cores] = replay_shared(self._program, cores, self._crews)
        return self._known[cores]

    def _point(self, cores: int, makespan: int) -> WhatIfPoint:
        """What was measured is one way to do it on the cores that there were, and fewer make the GIL no faster.

        Hand-offs that fall away save time on one core too; that is not counted.
        """
        if cores >= self._had:
            makespan = min(makespan, self.measured)
        makespan = max(makespan, -(-self.measured // cores))
        return WhatIfPoint(cores, makespan, max(self.measured / makespan, 1.0) if makespan else 1.0)


def _numbers(cores: int) -> list[int]:
    numbers = list(range(1, min(cores, EVERY_CORE) + 1))
    while numbers[-1] < cores:
        numbers.append(min(numbers[-1] * 2, cores))
    return numbers


def replay(program: Program, cores: int) -> int:
    """How long (ns) a program takes on so many cores, which are given to whoever is ready first, in turns."""
    return _Replay(program, cores).run()


def replay_shared(program: Program, cores: int, known: tuple[Crew, ...]) -> int:
    """How long (ns) it takes at least, however crews share their work among their threads.

    It does not end before the others have done theirs, nor before a crew has, from its first thread's beginning on; and
    all that needs a core has to have one. No thread is relieved of more than what others have time for now.
    """
    kept = replay(program, cores)
    if not known:
        return kept
    others = _Replay(without_work(program, known), cores)
    relieved = sum(crew.waited for crew in known)
    least = max(others.run(), int(program.cpu.sum()) // cores, kept - relieved)
    for crew in known:
        began = min(others.began.get(thread, 0) for thread in crew.threads.tolist())
        least = max(least, began + shared(program, crew))
    return min(kept, least)


class _Replay:
    def __init__(self, program: Program, cores: int) -> None:
        self.program = program
        self.delay, self.cpu = program.delay.tolist(), program.cpu.tolist()
        self.awaits, self.first = program.awaits.tolist(), program.first.tolist()
        self.free = cores
        threads = len(self.first) - 1
        total = sum(self.cpu)
        # With a core for everyone nobody needs to take turns.
        self.turn = max(TURN_NS, total // _MOST_TURNS) if cores < threads else total + 1
        self.at = self.first[:-1]
        self.left = [0] * threads
        self.done = [False] * len(self.delay)
        # For each step the threads that wait for it.
        self.awaiting: dict[int, list[int]] = {}
        self.ready: deque[int] = deque()
        # (time, order, thread, what happens)
        self.events: list[tuple[int, int, int, int]] = []
        self.order = 0
        self.end = 0
        # When each thread began.
        self.began: dict[int, int] = {}

    def run(self) -> int:
        """Replay everything and return when everything is over."""
        for thread, start in self.program.roots.items():
            self._at(start, thread, _BEGIN)
        while self.events or self._unstick():
            now, _, thread, what = heappop(self.events)
            if thread not in self.program.background:
                self.end = max(self.end, now)
            if what == _RAN:
                self.free += 1
            if self.left[thread]:
                self.ready.append(thread)
            elif what == _BEGIN:
                self.began[thread] = now
                self._begin_step(now, thread)
            else:
                self._finish_step(now, thread)
            while self.free and self.ready:
                self._run(now, self.ready.popleft())
        return self.end + self.program.tail

    def _unstick(self) -> bool:
        """Let go threads that wait for each other in a circle, as clocks a little apart can make it seem."""
        stuck = [thread for waiters in self.awaiting.values() for thread in waiters]
        self.awaiting.clear()
        for thread in stuck:
            self._wake(self.end, thread)
        return bool(stuck)

    def _at(self, time: int, thread: int, what: int) -> None:
        self.order += 1
        heappush(self.events, (time, self.order, thread, what))

    def _run(self, now: int, thread: int) -> None:
        turn = min(self.left[thread], self.turn)
        self.left[thread] -= turn
        self.free -= 1
        self._at(now + turn, thread, _RAN)

    def _begin_step(self, now: int, thread: int) -> None:
        """Begin the thread's next step, or end the thread."""
        step = self.at[thread]
        if step == self.first[thread + 1]:
            return
        awaited = self.awaits[step]
        if awaited >= 0 and not self.done[awaited]:
            self.awaiting.setdefault(awaited, []).append(thread)
        else:
            self._wake(now + self.delay[step], thread)

    def _wake(self, time: int, thread: int) -> None:
        """From `time` on the thread wants what its step needs of a core."""
        self.left[thread] = self.cpu[self.at[thread]]
        self._at(time, thread, _WOKEN)

    def _finish_step(self, now: int, thread: int) -> None:
        step = self.at[thread]
        self.at[thread] += 1
        self.done[step] = True
        for waiter in self.awaiting.pop(step, ()):
            self._wake(now, waiter)
        for child in self.program.spawns.get(step, ()):
            self._at(now, child, _BEGIN)
        self._begin_step(now, thread)

"""Write scenes of threads by hand: who had the GIL, who ran without it, who slept in which lock until whose call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from giltrace.timeline.model import BLOCK, HELD_LOCK, LOCK, BlockEnd, LockKind, Process, Stacks
from tests.unit.analysis_stacks import Frame, stack_table
from tests.unit.gil_events import PID, US, Kernel, Script, process

#: Where locks lie, unless a test says where: no multiple of 16 has the lock of an object.
FIRST_LOCK = 0x7F0000001000


@dataclass
class Scene:
    """The main thread, 0, and workers 1 to `threads` - 1, which live from 0 to the end, or to their `ends`.

    Times are ns. Stacks are told by names: each stands for one frame in the user's code, or for that in `stacks`.
    """

    threads: int = 3
    stacks: Mapping[str, Sequence[Frame]] = field(default_factory=dict)
    kinds: dict[int, LockKind] = field(default_factory=dict)
    addresses: dict[int, int] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    script: Script = field(default_factory=Script)
    kernel: Kernel = field(default_factory=Kernel)
    names: list[str] = field(default_factory=list)
    of_hold: dict[tuple[int, int], int] = field(default_factory=dict)
    blocks: list[tuple[tuple[int, ...], tuple[int, int], tuple[int, ...]]] = field(default_factory=list)

    def _stack(self, name: str) -> int:
        if not name:
            return -1
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def tid(self, thread: int) -> int:
        return PID if thread == 0 else 100 + thread

    def _name(self, tid: int) -> str:
        return "MainThread" if tid == PID else f"worker-{tid - 100}"

    def hold(self, start: int, end: int, thread: int, at: str = "") -> Scene:
        """It has the GIL, runs, and gives it up `at` a line."""
        self.script.hold(start, end, thread)
        self.of_hold[thread, start] = self._stack(at)
        return self.run(start, end, thread)

    def keep(self, start: int, end: int, thread: int, at: str = "", *, ran: int = 100 * US) -> Scene:
        """The same, but that it sleeps in the kernel with the GIL once it `ran` for so long, almost to the end."""
        self.script.hold(start, end, thread)
        self.of_hold[thread, start] = self._stack(at)
        return self.run(start, start + ran, thread).run(end - 10 * US, end, thread)

    def run(self, start: int, end: int, thread: int) -> Scene:
        """It has a core, each thread its own."""
        self.kernel.run(start, end, self.tid(thread), thread)
        return self

    def ready(self, start: int, thread: int) -> Scene:
        """It ran until then, and could have gone on."""
        self.kernel.switches[-1] = (start, PID, self.tid(thread), thread, 0, 1)
        return self

    def block(
        self,
        start: int,
        end: int,
        thread: int,
        *,
        at: str = "",
        lock: int = 0,
        by: int = -1,
        woken: int | None = None,
        wake: str = "",
        ended: BlockEnd | None = None,
        timed: bool = False,
        owned: bool = True,
        held: Sequence[int] = (),
    ) -> Scene:
        """It sleeps in a `lock` at a line, until thread `by` wakes it up at its own line; it has `held` others."""
        told = ended if ended is not None else BlockEnd.WOKEN if by >= 0 else BlockEnd.OPEN
        row = (start, end, thread, lock, by, end if woken is None else woken, int(told), int(timed), int(owned))
        self.blocks.append((row, (self._stack(at), self._stack(wake)), tuple(held)))
        return self

    def process(self, end: int, *, sched: bool = True, free_threaded: bool = False, stacks: bool = True) -> Process:
        """What all this makes, with or without context switches and stacks."""
        self.script.tids = [self.tid(thread) for thread in range(self.threads)]
        for thread, tid in enumerate(self.script.tids):
            self.kernel.ended(self.ends.get(thread, end), tid)
        made = process(self.script, self.kernel if sched else None, end=end)
        found = sorted(self.blocks, key=lambda block: block[0][0])
        most = max([-1, *(row[3] for row, _, _ in found), *(lock for _, _, held in found for lock in held)])
        locks = [
            (self.addresses.get(lock, FIRST_LOCK + 32 * lock), int(self.kinds.get(lock, LockKind.SEMAPHORE)))
            for lock in range(most + 1)
        ]
        held = [(at, lock) for at, (_, _, taken) in enumerate(found) for lock in taken]
        return replace(
            made,
            threads=tuple(one._replace(name=self._name(one.tid)) for one in made.threads),
            blocks=np.array([row for row, _, _ in found], BLOCK),
            locks=np.array(locks, LOCK),
            held=np.array(held, HELD_LOCK),
            stacks=self._stacks(made, [known for _, known, _ in found]) if stacks else None,
            free_threaded=free_threaded,
        )

    def _stacks(self, made: Process, of_blocks: list[tuple[int, int]]) -> Stacks:
        table = stack_table([self.stacks.get(name, [own(name)]) for name in self.names])
        places = zip(made.holds["thread"].tolist(), made.holds["start"].tolist(), strict=True)
        hold = np.array([self.of_hold.get(place, -1) for place in places], np.int32)
        none = np.full(len(made.waits), -1, np.int32)
        asked = np.full(len(made.switch_requests), -1, np.int32)
        block, wake = (np.array([known[side] for known in of_blocks], np.int32) for side in (0, 1))
        return Stacks(table, hold, hold, none, asked, block=block, wake=wake)


def own(name: str) -> Frame:
    """The frame that a name stands for: a function of the program."""
    return (name, "/srv/app.py", 1)


def library(name: str, file: str = "/usr/lib/python3.12/threading.py") -> Frame:
    """A frame of the standard library."""
    return (name, file, 100)

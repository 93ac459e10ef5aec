"""What a process that ran already has not counted: how long a thread has had the GIL that lets go of it never.

The tracer counts a hold that began before it came as one from then on, once it ends. Until then, and if that never
comes, it is told here.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from giltrace.launch.counting import Holder
from giltrace.metrics.reading import Counts, ProcessReading, RoleReading, ThreadReading
from giltrace.recording import layout
from giltrace.recording.gil_file import GilFile, cmdline_of, head_at, text_of
from giltrace.text import role_name


class Before:
    """Adds the hold of `holder` to what its process says in `folder`, as long as nobody else could have the GIL."""

    def __init__(self, folder: Path, holder: Holder) -> None:
        self._holder, self._goes_on = holder, True
        self._path = folder / f"gil-{holder.pid}-0.bin"

    def added_to(self, readings: tuple[ProcessReading, ...], *, alive: bool) -> tuple[ProcessReading, ...]:
        """The readings with it. The process has none of its own before somebody has let go of the GIL or asked for it.

        `alive` tells whether it is there. Its counters began when the tracer came.
        """
        head = head_at(self._path)
        if head is None:
            return readings
        beside = GilFile.of(self._path, head)
        start = int(beside.header["start_ns"])
        mine = next((one for one in readings if one.pid == self._holder.pid), None)
        others = tuple(one for one in readings if one is not mine)
        if mine is None:
            stopped = layout.Status.STOPPED in layout.Status(int(beside.header["status"]))
            if not alive or stopped or not self._goes_on:
                return readings
            python = text_of(bytes(beside.header["python"])).partition(" ")[0]
            nothing: tuple[()] = ()
            mine = ProcessReading(
                self._holder.pid, cmdline_of(beside), python, False, start, time.monotonic_ns(), *(nothing,) * 6
            )
        self._goes_on = self._goes_on and not mine.moved and not mine.ended
        mine = replace(mine, started_ns=start)
        return (self._held(mine) if self._goes_on else mine, *others)

    def _held(self, reading: ProcessReading) -> ProcessReading:
        ns = max(reading.at_ns - reading.started_ns, 0)
        held, role = Counts(held_ns=ns, longest_hold_ns=ns), role_name(self._holder.name)
        known = next((thread for thread in reading.threads if thread.tid == self._holder.tid), None)
        thread = known or ThreadReading(self._holder.tid, self._holder.name, role, Counts(), False, False, False)
        thread = replace(thread, counts=thread.counts + held, holding=True)
        roles = {one.role: one for one in reading.roles}
        before = roles.get(thread.role, RoleReading(thread.role, 0, Counts()))
        roles[thread.role] = RoleReading(thread.role, before.threads + (known is None), before.counts + held)
        return replace(
            reading,
            threads=(*(one for one in reading.threads if one is not known), thread),
            roles=tuple(one for _, one in sorted(roles.items())),
        )

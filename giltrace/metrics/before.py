"""What a process that ran already has not counted: how long a thread has had a GIL that lets go of it never.

The tracer counts a hold that began before it came as one from then on, once it ends. Until then, and if that never
comes, it is told here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from giltrace.launch.counting import Holder
from giltrace.metrics.reading import MAIN_GIL, Counts, ProcessReading, RoleReading, ThreadReading
from giltrace.recording import layout
from giltrace.recording.gil_file import GilFile, cmdline_of, head_at, text_of
from giltrace.text import role_name


class Before:
    """Adds the holds of `holders` to what their process says in `folder`, as long as nobody else could have those GILs.

    There is one for each GIL that the process had, the main interpreter's first, and that order is their numbers here:
    the tracer numbers GILs as it meets them, and may never meet one that nobody lets go of.
    """

    def __init__(self, folder: Path, holders: Sequence[Holder]) -> None:
        self._pid = holders[0].pid
        self._path = folder / f"gil-{self._pid}-0.bin"
        self._number_at = {holder.mutex: str(number) for number, holder in enumerate(holders)}
        self._going = {str(number): holder for number, holder in enumerate(holders) if holder.tid}
        #: By the tracer's.
        self._numbers = {MAIN_GIL: MAIN_GIL}

    def added_to(self, readings: tuple[ProcessReading, ...], *, alive: bool) -> tuple[ProcessReading, ...]:
        """The readings with it. The process has none of its own before somebody has let go of a GIL or asked for it.

        `alive` tells whether it is there. Its counters began when the tracer came.
        """
        head = head_at(self._path)
        if head is None:
            return readings
        beside = GilFile.of(self._path, head)
        start = int(beside.header["start_ns"])
        mine = next((one for one in readings if one.pid == self._pid), None)
        others = tuple(one for one in readings if one is not mine)
        if mine is None:
            stopped = layout.Status.STOPPED in layout.Status(int(beside.header["status"]))
            if not alive or stopped or not self._going:
                return readings
            python = text_of(bytes(beside.header["python"])).partition(" ")[0]
            nothing: tuple[()] = ()
            mine = ProcessReading(
                self._pid, cmdline_of(beside), python, False, start, time.monotonic_ns(), *(nothing,) * 6
            )
        mine = replace(self._numbered(mine, beside.header["gils"].tolist()), started_ns=start)
        if mine.ended:
            self._going.clear()
        for gil in self._going.keys() & mine.moved:
            del self._going[gil]
        for gil, holder in self._going.items():
            mine = _held(mine, gil, holder)
        return (mine, *others)

    def _numbered(self, reading: ProcessReading, addresses: list[int]) -> ProcessReading:
        """The reading with the numbers that GILs have here; `addresses` has them by the tracer's.

        Without a GIL whose address is 0: a thread counts there, and has yet to say which one it is.
        """
        for gil in sorted({role.gil for role in reading.roles} | reading.moved, key=int):
            address = addresses[int(gil)]
            if gil not in self._numbers and address:
                free = next(str(number) for number in range(layout.MAX_GILS * 2) if self._is_free(str(number)))
                self._numbers[gil] = self._number_at.get(address, free)
        known = self._numbers
        return replace(
            reading,
            roles=_together(replace(role, gil=known[role.gil]) for role in reading.roles if role.gil in known),
            moved=frozenset(known[gil] for gil in reading.moved if gil in known),
        )

    def _is_free(self, number: str) -> bool:
        return number not in self._number_at.values() and number not in self._numbers.values()


def _held(reading: ProcessReading, gil: str, holder: Holder) -> ProcessReading:
    """The reading with the hold of a GIL since the counters began."""
    ns = max(reading.at_ns - reading.started_ns, 0)
    held, role = Counts(held_ns=ns, longest_hold_ns=ns), role_name(holder.name)
    known = next((thread for thread in reading.threads if thread.tid == holder.tid), None)
    thread = known or ThreadReading(holder.tid, holder.name, role, Counts(), False, False, False)
    thread = replace(thread, counts=thread.counts + held, holding=True)
    more = RoleReading(thread.role, int(known is None), held, gil)
    return replace(
        reading,
        threads=(*(one for one in reading.threads if one is not known), thread),
        roles=_together((*reading.roles, more)),
    )


def _together(roles: Iterable[RoleReading]) -> tuple[RoleReading, ...]:
    """Those that are the same as one, in order."""
    found: dict[tuple[str, str], RoleReading] = {}
    for role in roles:
        before = found.get(role.key, replace(role, threads=0, counts=Counts()))
        found[role.key] = replace(role, threads=before.threads + role.threads, counts=before.counts + role.counts)
    return tuple(role for _, role in sorted(found.items()))

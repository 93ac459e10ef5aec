"""The figures that limits are set on: of each process the figures of its threads or roles, with whose line it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Literal, NamedTuple

import numpy as np

from giltrace.analysis.compare.places import Places
from giltrace.analysis.findings.costs import Costed
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.roles import roles
from giltrace.analysis.site import Site
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.model import Array, Process

Unit = Literal["ns", "share", "count", "verdict"]


class Chosen:
    """A process that is held against limits; what costs more is worked out when it is first asked for."""

    def __init__(self, process: Process, began_ns: int) -> None:
        """`began_ns` is when it was recorded, in ns since 1970."""
        self.process, self._began_ns = process, began_ns

    @cached_property
    def figures(self) -> Costed:
        """Its figures, which limits on times do without."""
        return Costed(self.process, self._began_ns)

    @cached_property
    def roles(self) -> tuple[str, ...]:
        """The role of each thread."""
        return tuple(roles(self.process))

    @cached_property
    def places(self) -> Places:
        """Whom to blame."""
        return Places(self.figures)


class Measured(NamedTuple):
    """A figure of a thread or role, `where`; `culprit` finds the site that is to blame for it."""

    value: float
    where: str
    culprit: Callable[[], Site | None]


def _rows(one: Chosen, rows: Array) -> Ints:
    """The numbers of the rows that are the chosen threads'."""
    chosen: Ints = np.flatnonzero(one.process.of_chosen(rows))
    return chosen


def _by_role(one: Chosen) -> tuple[list[str], Ints]:
    """The roles of a process, and for each thread the index of its own."""
    distinct = list(dict.fromkeys(one.roles))
    number = {role: at for at, role in enumerate(distinct)}
    return distinct, np.array([number[role] for role in one.roles], np.int64)


def _wait_p99(one: Chosen) -> Iterator[Measured]:
    waits = one.process.waits
    distinct, role = _by_role(one)
    rows = _rows(one, waits)
    length = usage.lengths(waits)
    order = rows[np.lexsort((length[rows], role[waits["thread"][rows]]))]
    count = np.bincount(role[waits["thread"][rows]], minlength=len(distinct))
    last = np.cumsum(count)
    for at in np.flatnonzero(count).tolist():
        # The nearest rank from above, as in the report: of up to 100 waits, the longest.
        rank = last[at] - count[at] + (99 * int(count[at]) + 99) // 100 - 1
        longest = _only(order[rank : last[at]], len(waits))
        yield Measured(int(length[order[rank]]), distinct[at], partial(_had_it, one, longest))


def _wait_share(one: Chosen) -> Iterator[Measured]:
    process = one.process
    distinct, role = _by_role(one)
    lives = usage.lives(process)
    of = process.chosen_threads
    waited = np.bincount(role[of], usage.sum_by_thread(process, process.waits)[of], len(distinct))
    lived = np.bincount(role[of], lives[of], len(distinct))
    chosen = process.of_chosen(process.waits)
    for at in np.flatnonzero(lived > 0).tolist():
        mine = chosen & (role[process.waits["thread"]] == at)
        yield Measured(float(waited[at] / lived[at]), distinct[at], partial(_had_it, one, mine))


def _longest_wait(one: Chosen) -> Iterator[Measured]:
    waits = one.process.waits
    for worst, length, where in _longest(one, waits, usage.lengths(waits)):
        yield Measured(length, where, partial(_had_it, one, _only(worst, len(waits))))


def _longest_hold(one: Chosen) -> Iterator[Measured]:
    for worst, length, where in _longest(one, one.process.holds, usage.hold_lengths(one.process)):
        yield Measured(length, where, partial(_held_it, one, worst))


def _longest(one: Chosen, rows: Array, length: Ints) -> Iterator[tuple[int, int, str]]:
    """The number of the longest of the chosen threads' rows, its length and its thread; nothing without any."""
    mine = _rows(one, rows)
    if len(mine):
        worst = int(mine[length[mine].argmax()])
        yield worst, int(length[worst]), _name(one.process, int(rows["thread"][worst]))


def _longest_overstay(one: Chosen) -> Iterator[Measured]:
    over = usage.overstays(one.process, 1)
    holds = one.process.holds[over.hold]
    thread, length = holds["thread"], np.where(one.process.of_chosen(holds), over.length, 0)
    if len(length):
        worst = int(length.argmax())
        hold = int(over.hold[worst])
        yield Measured(int(length[worst]), _name(one.process, int(thread[worst])), partial(_held_it, one, hold))


def _had_it(one: Chosen, waits: Bools) -> Site | None:
    """The site that had the GIL for most of these waits."""
    return one.places.of_waits(waits)


def _held_it(one: Chosen, hold: int) -> Site:
    """The site of a hold."""
    return one.places.of_hold(hold)


def _only(rows: int | Ints, count: int) -> Bools:
    """A choice of some of `count` rows."""
    chosen = np.zeros(count, np.bool_)
    chosen[rows] = True
    return chosen


def _name(process: Process, thread: int) -> str:
    known = process.threads[thread]
    return known.name or f"tid {known.tid}"


#: The limits on figures of threads: their unit, and what yields a process's figures, the largest of which counts.
#: The 99th percentile and the share are per role (threads whose names differ in their number), all its waits together.
LIMITS: dict[str, tuple[Unit, Callable[[Chosen], Iterator[Measured]]]] = {
    "max-wait": ("ns", _longest_wait),
    "max-wait-p99": ("ns", _wait_p99),
    "max-wait-share": ("share", _wait_share),
    "max-hold": ("ns", _longest_hold),
    "max-overstay": ("ns", _longest_overstay),
}

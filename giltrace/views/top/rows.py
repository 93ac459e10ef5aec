"""Which rows the live view lists: each thread's own or, of many, one for those of a role; and only those looked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace

from giltrace.analysis.measure.roles import roles_of
from giltrace.reports.thread_rows import MOST_SINGLE
from giltrace.views.top.model import Sort, ThreadRow, ThreadState

#: A role: the pid of its process, and its name.
Role = tuple[int, str]

#: Of several threads the state that comes first here is told.
_TELLING = tuple(ThreadState)


def listed(
    threads: tuple[ThreadRow, ...], sort: Sort, *, sought: str = "", role: Role | None = None, single: bool = False
) -> tuple[ThreadRow, ...]:
    """The rows, sorted; of more threads than a report has singly, those of a role share one, unless `single`.

    Those that have `sought` in their name, role, line or id only; of `role`, if given, each thread has its own. The
    `ident` of a row that stands for several is negative.
    """
    told = _roles(threads)
    if role is not None:
        threads = tuple(row for row in threads if told[row.ident] == role)
    rows = [row for row in threads if _has(row, told[row.ident][1], sought.casefold())]
    if single or role is not None or len(threads) <= MOST_SINGLE:
        return tuple(rows)
    together: dict[Role, list[ThreadRow]] = defaultdict(list)
    for row in rows:
        together[told[row.ident]].append(row)
    return tuple(_sorted((_folded(name, those) for (_, name), those in together.items()), sort))


def role_of(threads: tuple[ThreadRow, ...], ident: int) -> Role | None:
    """The role that the row `ident` stands for; None if that is a single thread's, or is no more."""
    return _roles(threads).get(-1 - ident) if ident < 0 else None


def _roles(threads: tuple[ThreadRow, ...]) -> dict[int, Role]:
    """The role of each thread, by its ident."""
    of_process: dict[int, list[ThreadRow]] = defaultdict(list)
    for row in threads:
        of_process[row.pid].append(row)
    return {
        row.ident: (pid, role)
        for pid, rows in of_process.items()
        for row, role in zip(rows, roles_of([row.name for row in rows]), strict=True)
    }


def _has(row: ThreadRow, role: str, sought: str) -> bool:
    texts = (row.name, role, str(row.line), str(row.own_line), str(row.tid), str(row.pid))
    return any(sought in text.casefold() for text in texts)


def _folded(role: str, rows: list[ThreadRow]) -> ThreadRow:
    """One row for several: sums, of their waiting the mean, the worst wait, and where the first of them stood."""
    if len(rows) == 1:
        return rows[0]
    return replace(
        rows[0],
        ident=-1 - min(row.ident for row in rows),
        tid=0,
        name=f"{role} ({len(rows)})",
        state=min((row.state for row in rows), key=_TELLING.index),
        held=sum(row.held for row in rows),
        waiting=sum(row.waiting for row in rows) / len(rows),
        worst_ns=max(row.worst_ns for row in rows),
        holds=sum(row.holds for row in rows),
        waits=sum(row.waits for row in rows),
        forced=sum(row.forced for row in rows),
        core=-1,
    )


def _sorted(rows: Iterable[ThreadRow], sort: Sort) -> list[ThreadRow]:
    if sort is Sort.NAME:
        return sorted(rows, key=lambda row: row.name)
    figure = {Sort.WAITING: "waiting", Sort.HELD: "held", Sort.WORST: "worst_ns"}[sort]
    return sorted(rows, key=lambda row: -getattr(row, figure))

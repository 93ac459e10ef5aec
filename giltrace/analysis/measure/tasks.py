"""Which kind of task waited, for the GIL or in locks, and which kind had what it waited for, and at which lines.

A scheduler's tasks are spans on threads (`recording.merged.TASKS`). Their begins and ends were read by their threads,
with the GIL: so no wait and no sleep in a lock lies across one, but holds do, and are cut there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.attribution import attribute
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.stretches import stretches
from giltrace.analysis.site import Site
from giltrace.recording.merged import TASKS, Merged
from giltrace.timeline.axis import Ints, LifeAxis
from giltrace.timeline.model import Array, Process

if TYPE_CHECKING:
    from giltrace.analysis.task_results import TaskBlame, TaskPrefix

#: So many rows are told, the largest.
MOST_ROWS = 1000


class Tasks(NamedTuple):
    """The tasks of one process, one row each: numbers of `thread`, `prefix` (in `prefixes`) and `key` (in `keys`).

    They are in order of thread and time and disjoint on each.
    """

    thread: Ints
    start: Ints
    end: Ints
    prefix: Ints
    key: Ints
    prefixes: tuple[str, ...]
    keys: tuple[str, ...]


class TaskTables(NamedTuple):
    """What is told of the tasks of one process, or of several that work for a `scheduler`; empty without tasks."""

    prefixes: tuple[TaskPrefix, ...] = ()
    blame: tuple[TaskBlame, ...] = ()
    scheduler: str = TASKS[0]


NO_TASKS = TaskTables()


def tasks_of(process: Process, merged: Iterable[Merged]) -> Tasks | None:
    """The tasks on the threads of a process; None if it has none."""
    one = _scheduled(merged)
    if one is None:
        return None
    number = {(process.pid, thread.tid): at for at, thread in enumerate(process.threads)}
    of_track = np.array([number.get((track.pid, track.tid), -1) for track in one.tracks], np.int64)
    thread = of_track[one.rows["track"]]
    mine = (thread >= 0) & (one.rows["start"] < process.end) & (one.rows["end"] > process.start)
    if not mine.any():
        return None
    order = np.flatnonzero(mine)
    order = order[np.lexsort((one.rows["start"][order], thread[order]))]
    rows, thread = one.rows[order], thread[order]
    start, end = rows["start"].astype(np.int64), rows["end"].astype(np.int64)
    same = thread[1:] == thread[:-1]
    end[:-1] = np.where(same, np.minimum(end[:-1], start[1:]), end[:-1])
    prefix, key = rows["category"].astype(np.int64), rows["name"].astype(np.int64)
    return Tasks(thread, start, end, prefix, key, one.categories, one.names)


def _scheduled(merged: Iterable[Merged]) -> Merged | None:
    return next((one for one in merged if one.label in TASKS), None)


def task_at(process: Process, tasks: Tasks, thread: npt.NDArray[Any], time: npt.NDArray[Any]) -> Ints:
    """The task that each `thread` was in at a `time` (one per row), -1 where it was in none."""
    axis = LifeAxis.of_threads(process.threads)
    begin = axis.place(tasks.thread, tasks.start)
    at = np.searchsorted(begin, axis.place(thread, time), "right") - 1
    # Before the first it is the one at the end, which is none.
    within = (np.append(tasks.thread, -1)[at] == thread) & (np.append(tasks.end, 0)[at] > time)
    return np.where(within, at, -1)


class Spent(NamedTuple):
    """What each task, and at the end all that was done beside tasks, lost and had: ns, and the number of waits.

    `held` of chosen threads, and likewise the others; `longest` is the longest wait.
    """

    waits: Ints
    waited: Ints
    longest: Ints
    held: Ints
    blocked: Ints


class _At(NamedTuple):
    """The task of each wait, of each block and of each piece of a hold, -1 for none; the pieces with their stacks."""

    wait: Ints
    block: Ints
    hold: Ints
    pieces: Array
    stack: npt.NDArray[np.int32]


def find_tasks(process: Process, merged: Iterable[Merged], causes: npt.NDArray[Any], sites: Sites) -> TaskTables:
    """What the tasks of a process lost, by kind, and to whom; of chosen threads what these lost.

    `causes` are those of the blocks, `sites` those of the process.
    """
    tasks = tasks_of(process, merged)
    if tasks is None:
        return NO_TASKS
    at = _at(process, tasks)
    rows = sorted((*_of_gil(process, tasks, at, sites), *_of_locks(process, tasks, at, causes, sites)), key=_less)
    return TaskTables(_prefixes(tasks, _spent(process, tasks, at), rows), tuple(rows[:MOST_ROWS]))


def spent(process: Process, tasks: Tasks) -> Spent:
    """What each of the tasks of a process lost and had."""
    return _spent(process, tasks, _at(process, tasks))


def _least(row: TaskPrefix) -> tuple[int, int]:
    return -row.waited_ns, -row.ns


def _less(row: TaskBlame) -> int:
    return -row.ns


def _at(process: Process, tasks: Tasks) -> _At:
    wait, block = (task_at(process, tasks, rows["thread"], rows["start"]) for rows in (process.waits, process.blocks))
    pieces, stack = _cut(process, tasks)
    return _At(wait, block, task_at(process, tasks, pieces["thread"], pieces["start"]), pieces, stack)


def _spent(process: Process, tasks: Tasks, at: _At) -> Spent:
    found = Spent(*np.zeros((len(Spent._fields), len(tasks.start) + 1), np.int64))
    for task, rows, into in (
        (at.wait, process.waits, found.waited),
        (at.hold, at.pieces, found.held),
        (at.block, process.blocks, found.blocked),
    ):
        length = np.where(process.of_chosen(rows), rows["end"] - rows["start"], 0)
        np.add.at(into, task, length)
        if rows is process.waits:
            np.add.at(found.waits, task, process.of_chosen(rows))
            np.maximum.at(found.longest, task, length)
    return found


def _cut(process: Process, tasks: Tasks) -> tuple[Array, npt.NDArray[np.int32]]:
    """The holds, cut by what was seen of them and where tasks begin and end; the stack of each piece."""
    held = stretches(process)
    axis = LifeAxis.of_threads(process.threads)
    begin, finish = (axis.place(held.holds["thread"], held.holds[edge]) for edge in ("start", "end"))
    order = np.argsort(begin, kind="stable")
    thread, time = np.tile(tasks.thread, 2), np.concatenate([tasks.start, tasks.end])
    edge, first = np.unique(axis.place(thread, time), return_index=True)
    at = np.searchsorted(begin[order], edge, "right") - 1
    if not len(order):
        return held.holds, held.stack
    piece = order[np.maximum(at, 0)]
    inside = (at >= 0) & (edge > begin[piece]) & (edge < finish[piece])
    piece, time = piece[inside], time[first[inside]]
    rows = 1 + np.bincount(piece, minlength=len(held.holds))
    of = np.repeat(np.arange(len(rows)), rows)
    cut = held.holds[of]
    by_piece = np.lexsort((time, piece))
    piece, time = piece[by_piece], time[by_piece]
    nth = np.arange(len(piece)) - np.searchsorted(piece, piece)
    place = (np.cumsum(rows) - rows)[piece] + nth
    cut["end"][place], cut["start"][place + 1] = time, time
    by_time = np.argsort(cut["start"], kind="stable")
    return cut[by_time], held.stack[of][by_time]


def _of_gil(process: Process, tasks: Tasks, at: _At, sites: Sites) -> list[TaskBlame]:
    from giltrace.analysis.task_results import GIL, TaskBlame  # few recordings have tasks

    victims = Sites.own_lines(sites.classify(process.waits["thread"], sites.wait_stacks()))
    culprits = Sites.own_lines(sites.classify(at.pieces["thread"], at.stack))
    victim, victim_kinds = _kinds(_prefix(tasks, at.wait), victims.of_row)
    culprit, culprit_kinds = _kinds(_prefix(tasks, at.hold), culprits.of_row)
    found = attribute(replace(process, holds=at.pieces), victim, culprit, process.of_chosen(process.waits))
    rows = []
    for v, c, ns, waits, most, _ in zip(*(column.tolist() for column in found), strict=True):
        (prefix, line), (by, by_line) = victim_kinds[v], culprit_kinds[c]
        whom, who = _line(victims.sites[line]), _line(culprits.sites[by_line])
        rows.append(TaskBlame(_name(tasks, prefix), whom, GIL, _name(tasks, by), who, ns, waits, most))
    return _together(rows)


def _of_locks(process: Process, tasks: Tasks, at: _At, causes: npt.NDArray[Any], sites: Sites) -> list[TaskBlame]:
    from giltrace.analysis.task_results import TaskBlame

    known, unknown = process.stacks, np.full(len(process.blocks), -1)
    block_stack, wake_stack = (known.block, known.wake) if known is not None else (unknown, unknown)
    asked = np.flatnonzero(process.of_chosen(process.blocks) & (at.block >= 0))
    if not len(asked):
        return []
    rows = process.blocks[asked]
    woken, waker = rows["waker"] >= 0, np.maximum(rows["waker"], 0)
    waker_task = np.where(woken, task_at(process, tasks, waker, rows["woken"]), -1)
    victims = Sites.own_lines(sites.classify(rows["thread"], block_stack[asked]))
    wakers = Sites.own_lines(sites.classify(waker, np.where(woken, wake_stack[asked], -1)))
    columns = (_prefix(tasks, at.block[asked]), victims.of_row, causes[asked], _prefix(tasks, waker_task))
    every = np.stack([*columns, wakers.of_row, woken], axis=1, dtype=np.int64)
    kinds, number = np.unique(every, axis=0, return_inverse=True)
    total, longest, count = np.zeros((3, len(kinds)), np.int64)
    length = rows["end"] - rows["start"]
    np.add.at(total, number.ravel(), length)
    np.maximum.at(longest, number.ravel(), length)
    np.add.at(count, number.ravel(), 1)
    found = []
    for (prefix, line, cause, by, by_line, is_known), ns, times, most in zip(
        kinds.tolist(), total.tolist(), count.tolist(), longest.tolist(), strict=True
    ):
        who = _line(wakers.sites[by_line]) if is_known else None
        whom, label = _line(victims.sites[line]), BlockCause(cause).label
        found.append(TaskBlame(_name(tasks, prefix), whom, label, _name(tasks, by), who, ns, times, most))
    return _together(found)


def _prefixes(tasks: Tasks, spent: Spent, blame: Sequence[TaskBlame]) -> tuple[TaskPrefix, ...]:
    from giltrace.analysis.task_results import GIL, TaskPrefix

    of_task = np.append(tasks.prefix + 1, 0)
    longest, number, ns = np.zeros((3, len(tasks.prefixes) + 1), np.int64)
    np.maximum.at(longest, of_task, spent.longest)
    np.add.at(number, of_task[:-1], 1)
    np.add.at(ns, of_task[:-1], tasks.end - tasks.start)
    waits, waited, held, blocked = (
        np.bincount(of_task, column, len(ns)).astype(np.int64)
        for column in (spent.waits, spent.waited, spent.held, spent.blocked)
    )
    cost = Counter[str]()
    for pair in blame:
        if pair.cause == GIL:
            cost[pair.culprit_prefix] += pair.ns
    rows = []
    for at in np.flatnonzero(ns + held + waited).tolist():
        mine = np.flatnonzero(of_task == at) if at else np.empty(0, np.int64)
        worst = int(mine[spent.waited[mine].argmax()]) if len(mine) and spent.waited[mine].any() else -1
        rows.append(
            TaskPrefix(
                prefix=_name(tasks, at),
                tasks=int(number[at]),
                ns=int(ns[at]),
                held_ns=int(held[at]),
                waited_ns=int(waited[at]),
                waits=int(waits[at]),
                wait_max_ns=int(longest[at]),
                blocked_ns=int(blocked[at]) if at else 0,
                cost_ns=cost[_name(tasks, at)],
                worst=tasks.keys[int(tasks.key[worst])] if worst >= 0 else "",
                worst_ns=int(spent.waited[worst]) if worst >= 0 else 0,
            )
        )
    return tuple(sorted(rows, key=_least))


def _prefix(tasks: Tasks, task: Ints) -> Ints:
    """The number of the prefix of each task, from 1 on; 0 for none."""
    return np.append(tasks.prefix, -1)[task] + 1


def _name(tasks: Tasks, prefix: int) -> str:
    return tasks.prefixes[prefix - 1] if prefix else ""


def _kinds(prefix: Ints, line: Ints) -> tuple[Ints, list[tuple[int, int]]]:
    """Rows sorted by prefix and line: the kind of each, and what each kind is."""
    width = int(line.max(initial=0)) + 1
    used, number = np.unique(prefix * width + line, return_inverse=True)
    return number.ravel().astype(np.int64), [divmod(one, width) for one in used.tolist()]


def _line(site: Site) -> Site:
    return replace(site, thread="")


def _together(rows: Iterable[TaskBlame], *, apart: bool = False) -> list[TaskBlame]:
    """Rows of the same lines and kinds as one: roles are not told apart here. `apart`: each is of another process."""
    found: dict[tuple[Any, ...], TaskBlame] = {}
    for row in rows:
        key = (row.prefix, row.victim, row.cause, row.culprit_prefix, row.culprit)
        known = found.get(key)
        found[key] = row if known is None else _sum(known, row, apart=apart)
    return list(found.values())


def _sum(one: TaskBlame, other: TaskBlame, *, apart: bool) -> TaskBlame:
    return replace(
        one,
        ns=one.ns + other.ns,
        count=one.count + other.count,
        max_ns=max(one.max_ns, other.max_ns),
        processes=one.processes + other.processes if apart else one.processes,
    )


def merged_tables(tables: Iterable[TaskTables], merged: Iterable[Merged]) -> TaskTables:
    """What several processes lost together, whose tasks are among what was `merged`."""
    several, one = list(tables), _scheduled(merged)
    prefixes: dict[str, TaskPrefix] = {}
    for row in (row for one in several for row in one.prefixes):
        known = prefixes.get(row.prefix)
        prefixes[row.prefix] = row if known is None else _added(known, row)
    blame = _together((row for one in several for row in one.blame), apart=True)
    return TaskTables(
        tuple(sorted(prefixes.values(), key=_least)),
        tuple(sorted(blame, key=_less)[:MOST_ROWS]),
        one.label if one is not None else TASKS[0],
    )


def _added(one: TaskPrefix, other: TaskPrefix) -> TaskPrefix:
    summed = ("tasks", "ns", "held_ns", "waited_ns", "waits", "blocked_ns", "cost_ns")
    worst = max(one, other, key=lambda row: row.worst_ns)
    return replace(
        worst,
        wait_max_ns=max(one.wait_max_ns, other.wait_max_ns),
        **{name: getattr(one, name) + getattr(other, name) for name in summed},
    )

"""Which kind of task waited, for the GIL or in locks, and which kind had what it waited for, and at which lines.

A scheduler's tasks are spans on threads (`recording.merged.TASKS`). Their begins and ends were read by their threads,
with the GIL: so no wait and no sleep in a lock lies across one, but holds do, and are cut there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.attribution import attribute
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.stretches import stretches
from giltrace.analysis.site import Site
from giltrace.analysis.task_results import GIL, TaskBlame, TaskPrefix
from giltrace.recording.merged import TASKS, Merged
from giltrace.timeline.axis import Ints, LifeAxis
from giltrace.timeline.model import Array, Process

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
    """What is told of the tasks of one process; both empty without tasks."""

    prefixes: tuple[TaskPrefix, ...] = ()
    blame: tuple[TaskBlame, ...] = ()


def tasks_of(process: Process, merged: Iterable[Merged]) -> Tasks | None:
    """The tasks on the threads of a process; None if it has none."""
    one = next((one for one in merged if one.label == TASKS), None)
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


def task_at(process: Process, tasks: Tasks, thread: npt.NDArray[Any], time: npt.NDArray[Any]) -> Ints:
    """The task that each `thread` was in at a `time` (one per row), -1 where it was in none."""
    axis = LifeAxis.of_threads(process.threads)
    begin = axis.place(tasks.thread, tasks.start)
    at = np.searchsorted(begin, axis.place(thread, time), "right") - 1
    inside = np.maximum(at, 0)
    within = (at >= 0) & (tasks.thread[inside] == thread) & (tasks.end[inside] > time)
    return np.where(within, at, -1)


def find_tasks(process: Process, merged: Iterable[Merged], causes: npt.NDArray[Any], sites: Sites) -> TaskTables:
    """What the tasks of a process lost, by kind, and to whom; of chosen threads what these lost.

    `causes` are those of the blocks, `sites` those of the process.
    """
    tasks = tasks_of(process, merged)
    if tasks is None:
        return TaskTables()
    wait_task = task_at(process, tasks, process.waits["thread"], process.waits["start"])
    pieces, stack = _cut(process, tasks)
    hold_task = task_at(process, tasks, pieces["thread"], pieces["start"])
    of_gil = _of_gil(process, tasks, (wait_task, pieces, hold_task, stack), sites)
    of_locks = _of_locks(process, tasks, causes, sites)
    rows = sorted((*of_gil, *of_locks), key=lambda row: -row.ns)
    return TaskTables(_prefixes(process, tasks, wait_task, pieces, hold_task, rows), tuple(rows[:MOST_ROWS]))


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


_Held = tuple[Ints, Array, Ints, npt.NDArray[np.int32]]


def _of_gil(process: Process, tasks: Tasks, held: _Held, sites: Sites) -> list[TaskBlame]:
    wait_task, pieces, hold_task, stack = held
    victims = Sites.own_lines(sites.classify(process.waits["thread"], sites.wait_stacks()))
    culprits = Sites.own_lines(sites.classify(pieces["thread"], stack))
    victim, victim_kinds = _kinds(_prefix(tasks, wait_task), victims.of_row)
    culprit, culprit_kinds = _kinds(_prefix(tasks, hold_task), culprits.of_row)
    found = attribute(replace(process, holds=pieces), victim, culprit, process.of_chosen(process.waits))
    rows = []
    for v, c, ns, waits, most, _ in zip(*(column[:MOST_ROWS].tolist() for column in found), strict=True):
        (prefix, line), (culprit_prefix, culprit_line) = victim_kinds[v], culprit_kinds[c]
        who, whom = _line(culprits.sites[culprit_line]), _line(victims.sites[line])
        rows.append(
            TaskBlame(_name(tasks, prefix), whom, GIL, _name(tasks, culprit_prefix), who, ns, waits, most)
        )
    return _together(rows)


def _of_locks(process: Process, tasks: Tasks, causes: npt.NDArray[Any], sites: Sites) -> list[TaskBlame]:
    blocks, known = process.blocks, process.stacks
    unknown = np.full(len(blocks), -1)
    block_stack, wake_stack = (known.block, known.wake) if known is not None else (unknown, unknown)
    task = task_at(process, tasks, blocks["thread"], blocks["start"])
    asked = np.flatnonzero(process.of_chosen(blocks) & (task >= 0))
    if not len(asked):
        return []
    rows, woken = blocks[asked], blocks["waker"][asked] >= 0
    waker = np.maximum(rows["waker"], 0)
    waker_task = np.where(woken, task_at(process, tasks, waker, rows["woken"]), -1)
    victims = Sites.own_lines(sites.classify(rows["thread"], block_stack[asked]))
    wakers = Sites.own_lines(sites.classify(waker, np.where(woken, wake_stack[asked], -1)))
    columns = (_prefix(tasks, task[asked]), victims.of_row, causes[asked], _prefix(tasks, waker_task), wakers.of_row)
    kinds, number = np.unique(np.stack([*columns, woken]).astype(np.int64), axis=1, return_inverse=True)
    number, length = number.ravel(), rows["end"] - rows["start"]
    total, times, longest = np.zeros((3, kinds.shape[1]), np.int64)
    np.add.at(total, number, length)
    np.add.at(times, number, 1)
    np.maximum.at(longest, number, length)
    found = []
    for kind, ns, count, most in zip(kinds.T.tolist(), total.tolist(), times.tolist(), longest.tolist(), strict=True):
        prefix, line, cause, by, waker_line, known_waker = kind
        who = _line(wakers.sites[waker_line]) if known_waker else None
        told = (BlockCause(cause).label, _name(tasks, by), who, ns, count, most)
        found.append(TaskBlame(_name(tasks, prefix), _line(victims.sites[line]), *told))
    return _together(found)


def _prefixes(
    process: Process, tasks: Tasks, wait_task: Ints, pieces: Array, hold_task: Ints, blame: Sequence[TaskBlame]
) -> tuple[TaskPrefix, ...]:
    waits = process.waits
    of_wait, of_hold, of_task = _prefix(tasks, wait_task), _prefix(tasks, hold_task), tasks.prefix + 1
    chosen = process.of_chosen(waits)
    length = np.where(chosen, waits["end"] - waits["start"], 0)
    ns, held, waited, number, times, longest = np.zeros((6, len(tasks.prefixes) + 1), np.int64)
    np.add.at(ns, of_task, tasks.end - tasks.start)
    np.add.at(number, of_task, 1)
    np.add.at(held, of_hold, np.where(process.of_chosen(pieces), pieces["end"] - pieces["start"], 0))
    np.add.at(waited, of_wait, length)
    np.add.at(times, of_wait, chosen)
    np.maximum.at(longest, of_wait, length)
    of_one = np.zeros(len(tasks.start), np.int64)
    inside = wait_task >= 0
    np.add.at(of_one, wait_task[inside], length[inside])
    rows = []
    for at in np.flatnonzero(ns + held + waited).tolist():
        name = _name(tasks, at)
        mine = np.flatnonzero(of_task == at)
        worst = int(mine[of_one[mine].argmax()]) if len(mine) and of_one[mine].any() else -1
        rows.append(
            TaskPrefix(
                prefix=name,
                tasks=int(number[at]),
                ns=int(ns[at]),
                held_ns=int(held[at]),
                waited_ns=int(waited[at]),
                waits=int(times[at]),
                wait_max_ns=int(longest[at]),
                blocked_ns=sum(row.ns for row in blame if row.prefix == name and row.cause != GIL),
                cost_ns=sum(row.ns for row in blame if row.culprit_prefix == name and row.cause == GIL),
                worst=tasks.keys[int(tasks.key[worst])] if worst >= 0 else "",
                worst_ns=int(of_one[worst]) if worst >= 0 else 0,
            )
        )
    return tuple(sorted(rows, key=lambda row: -row.waited_ns))


def _prefix(tasks: Tasks, task: Ints) -> Ints:
    """The number of the prefix of each task, from 1 on; 0 for none."""
    return np.where(task >= 0, tasks.prefix[task] + 1, 0)


def _name(tasks: Tasks, prefix: int) -> str:
    return tasks.prefixes[prefix - 1] if prefix else ""


def _kinds(prefix: Ints, line: Ints) -> tuple[Ints, list[tuple[int, int]]]:
    """Rows sorted by prefix and line: the kind of each, and what each kind is."""
    width = int(line.max(initial=0)) + 1
    used, number = np.unique(prefix * width + line, return_inverse=True)
    return number.ravel().astype(np.int64), [divmod(one, width) for one in used.tolist()]


def _line(site: Site) -> Site:
    return replace(site, thread="")


def _together(rows: Iterable[TaskBlame]) -> list[TaskBlame]:
    """Rows of the same lines and kinds as one: roles are not told apart here."""
    found: dict[tuple[Any, ...], TaskBlame] = {}
    for row in rows:
        key = (row.prefix, row.victim, row.cause, row.culprit_prefix, row.culprit)
        known = found.get(key)
        found[key] = row if known is None else _sum(known, row, processes=0)
    return list(found.values())


def _sum(one: TaskBlame, other: TaskBlame, processes: int) -> TaskBlame:
    most = max(one.max_ns, other.max_ns)
    total = (one.ns + other.ns, one.count + other.count, one.processes + processes)
    return replace(one, ns=total[0], count=total[1], max_ns=most, processes=total[2])


def merged_tables(tables: Iterable[TaskTables]) -> TaskTables:
    """What several processes lost together."""
    prefixes: dict[str, TaskPrefix] = {}
    blame: dict[tuple[Any, ...], TaskBlame] = {}
    for one in tables:
        for row in one.prefixes:
            known = prefixes.get(row.prefix)
            prefixes[row.prefix] = row if known is None else _added(known, row)
        for pair in one.blame:
            key = (pair.prefix, pair.victim, pair.cause, pair.culprit_prefix, pair.culprit)
            before = blame.get(key)
            blame[key] = pair if before is None else _sum(before, pair, pair.processes)
    return TaskTables(
        tuple(sorted(prefixes.values(), key=lambda row: -row.waited_ns)),
        tuple(sorted(blame.values(), key=lambda row: -row.ns)[:MOST_ROWS]),
    )


def _added(one: TaskPrefix, other: TaskPrefix) -> TaskPrefix:
    summed = ("tasks", "ns", "held_ns", "waited_ns", "waits", "blocked_ns", "cost_ns")
    worst = max(one, other, key=lambda row: row.worst_ns)
    return replace(
        worst,
        wait_max_ns=max(one.wait_max_ns, other.wait_max_ns),
        **{name: getattr(one, name) + getattr(other, name) for name in summed},
    )

"""What each thread would do without a GIL: its program order as steps of delay and CPU demand.

Waits fall away, and so does time in which other threads of the process had all its cores. What a thread slept, it
sleeps again; what it ran, it runs again. Where something else kept it from a core, another program or a limit, it does
so again: for that long the core is not the process's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.intervals import last_released
from giltrace.analysis.replay.native_locks import MOST_WAKES, Wakes
from giltrace.timeline.axis import Bools, Ints, LifeAxis
from giltrace.timeline.model import HOLD, Process, State

#: A thread that stops being blocked so near to another's end was joining it: what wakes it up comes before that end,
#: and a core may be a moment away.
JOIN_SLACK_NS = 1_000_000
#: A thread that ends so soon, as a share of its life, after another began to wait for that was told to end: what its
#: end hung on is the one that waits.
TOLD_TO_END = 0.02
#: So many ends before and after it are looked at for each delay.
NEIGHBOURS = 4
#: Who is woken up on a busy machine goes on so much later at most.
WAKE_SLACK_NS = 50_000_000
#: So many of the wakes that are on record are followed, those of the longest blocks.
MOST_EXACT = 20_000
#: Threads with more steps than this together are replayed in coarser ones.
MOST_STEPS = 10_000
#: Who blocks in code of these files is woken by another thread, not by the world.
_LOCK_FILES = ("/threading.py", "/queue.py", "/concurrent/futures/thread.py", "/concurrent/futures/_base.py")


@dataclass(frozen=True)
class Program:
    """The steps of all threads, those of thread i being ``first[i]:first[i + 1]``.

    A step sleeps for `delay` ns, or until the step `awaits` is done (-1: none), and then takes a core for `cpu` ns: its
    own running, and what others ran there meanwhile.
    Then it starts the threads `spawns[step]`. `roots` maps threads that no step starts to when they start, in ns.
    For `tail` ns after the last step of all nothing happens.
    """

    first: Ints
    delay: Ints
    cpu: Ints
    awaits: Ints
    spawns: dict[int, list[int]]
    roots: dict[int, int]
    tail: int


_DELAY, _CPU, _READY, _HELD = range(4)
_KIND = np.full(len(State), -1, np.int64)
_KIND[[State.HOLDING_RUNNING, State.OFF_RUNNING]] = _CPU
_KIND[State.OFF_BLOCKED] = _DELAY
_KIND[State.HOLDING_BLOCKED] = _HELD
_KIND[[State.HOLDING_RUNNABLE, State.OFF_RUNNABLE]] = _READY


@dataclass
class _Rows:
    """Stretches of each `kind`, sorted by (thread, start).

    Of delay off the GIL and with it held, of running, and of being ready without a core.
    """

    thread: Ints
    start: Ints
    end: Ints
    kind: Ints

    def keep(self, chosen: npt.NDArray[Any]) -> _Rows:
        return _Rows(self.thread[chosen], self.start[chosen], self.end[chosen], self.kind[chosen])


def read_program(
    process: Process, cores: int, native: Wakes, *, woken: bool = False, without: Sequence[int] = ()
) -> Program:
    """Work out what the threads of a process that had `cores` do without a GIL. Without scheduling data, holds run.

    A thread that is ready while its process runs on fewer than those is kept from a core by something else. That would
    be so without the GIL: a core counts as taken for that time, and not as a delay, which could pass while another
    thread of the process has that core.

    Who blocks in the code of locks and queues is woken by another thread; with `woken`, whoever goes on while another
    thread has the GIL: a lock or a queue written in C has no frame of its own, and looks like a read or a sleep.
    Of locks in native code off the GIL the `native` wakes are told. Nobody is blocked in the locks `without` which it
    is to be done, given by their numbers.
    """
    rows = _from_states(process) if process.has_sched and len(process.states) else _from_holds(process)
    axis = LifeAxis.of_threads(process.threads)
    starts, ends = axis.starts, axis.ends
    rows = _without_tails(rows, len(starts))
    if len(without):
        gone = np.isin(process.blocks["lock"], without)
        delay = np.flatnonzero(rows.kind == _DELAY)
        _, in_block = _of_blocks(replace(process, blocks=process.blocks[gone]), rows, axis, delay)
        rows = rows.keep(~np.isin(np.arange(len(rows.thread)), delay[in_block]))
        process = replace(process, blocks=process.blocks[~gone])
    parent = _parents(process, starts, ends)
    child = np.flatnonzero(parent >= 0)
    wakes = _wakes(process, rows, axis, native, everywhere=woken)
    rows = _cut(rows, axis, np.append(parent[child], wakes.waker), np.append(starts[child], wakes.time))
    spawner = _last_row(rows, axis, parent[child], starts[child])
    awaited = _joins(rows, starts, ends)
    waker = _last_row(rows, axis, wakes.waker, wakes.time)
    sleeper = _last_row(rows, axis, wakes.thread, wakes.time)
    free = (waker >= 0) & (sleeper >= 0)
    free[free] = awaited[sleeper[free]] < 0
    awaited[sleeper[free]] = waker[free]
    # A step ends where another thread depends on it.
    borders = np.unique(np.concatenate([spawner, awaited]))
    step = _steps(rows, awaited >= 0, borders[borders >= 0])
    return _assemble(process, cores, rows, step, awaited, dict(zip(child.tolist(), spawner.tolist(), strict=True)))


class Dependencies(NamedTuple):
    """What a `thread` slept until `time` for: something that the thread `waker` did; one row each.

    `parent` is the thread that started each one, -1 where none is known.
    """

    thread: Ints
    time: Ints
    waker: Ints
    parent: Ints


def dependencies(process: Process, native: Wakes) -> Dependencies:
    """Which threads waited for which others, as far as it is known: starts, joins, locks, queues, and `native` ones."""
    rows = _from_states(process) if process.has_sched and len(process.states) else _from_holds(process)
    axis = LifeAxis.of_threads(process.threads)
    rows = _without_tails(rows, len(axis.starts))
    woken = _wakes(process, rows, axis, native, everywhere=False)
    awaited = _joins(rows, axis.starts, axis.ends)
    joined = np.flatnonzero(awaited >= 0)
    row = np.concatenate([_last_row(rows, axis, woken.thread, woken.time), joined])
    waker = np.concatenate([woken.waker, rows.thread[awaited[joined]]])
    ended = axis.ends[waker] - rows.end[row] < JOIN_SLACK_NS
    lived = (axis.ends - axis.starts)[waker]
    kept = ~ended | ((rows.end - rows.start)[row] >= TOLD_TO_END * lived)
    row, waker = row[kept], waker[kept]
    return Dependencies(rows.thread[row], rows.end[row], waker, _parents(process, axis.starts, axis.ends))


def _assemble(process: Process, cores: int, rows: _Rows, step: Ints, awaited: Ints, spawner: dict[int, int]) -> Program:
    """Add rows up to their steps; `awaited` (per row) and `spawner` (per thread that was started) are rows."""
    count = int(step[-1]) + 1 if len(step) else 0
    length = rows.end - rows.start
    ready = np.flatnonzero(rows.kind == _READY)
    length[ready] = _taken(process, cores, rows.start[ready], rows.end[ready])
    head = np.searchsorted(step, np.arange(count))
    takes = (rows.kind == _CPU) | (rows.kind == _READY)
    delay = np.where(takes | (awaited >= 0), 0, length)
    program = Program(
        first=np.searchsorted(rows.thread[head], np.arange(len(process.threads) + 1)),
        delay=np.bincount(step, weights=delay, minlength=count).astype(np.int64),
        cpu=np.bincount(step, weights=np.where(takes, length, 0), minlength=count).astype(np.int64),
        awaits=np.where(awaited[head] >= 0, step[awaited[head]], -1) if count else np.empty(0, np.int64),
        spawns={},
        roots={},
        tail=process.end - int(rows.end.max(initial=process.start)),
    )
    for thread, known in enumerate(process.threads):
        row = spawner.get(thread, -1)
        if row >= 0:
            program.spawns.setdefault(int(step[row]), []).append(thread)
        else:
            program.roots[thread] = known.start - process.start
    return program


def _without_tails(rows: _Rows, threads: int) -> _Rows:
    """Leave out what comes after the last time that each thread ran or held a GIL: nothing waits for it."""
    last = np.full(threads, -1, np.int64)
    ran = np.flatnonzero((rows.kind == _CPU) | (rows.kind == _HELD))
    np.maximum.at(last, rows.thread[ran], ran)
    return rows.keep(np.arange(len(rows.thread)) <= last[rows.thread])


def _last_row(rows: _Rows, axis: LifeAxis, thread: Ints, time: Ints) -> Ints:
    """The last row of each thread that ended by that time, -1 if none did."""
    if len(rows.thread) == 0 or len(thread) == 0:
        return np.full(len(thread), -1, np.int64)
    at = np.searchsorted(axis.place(rows.thread, rows.end), axis.place(thread, time), "right") - 1
    return np.where((at >= 0) & (rows.thread[np.maximum(at, 0)] == thread), at, -1)


def _wakes(process: Process, rows: _Rows, axis: LifeAxis, native: Wakes, *, everywhere: bool) -> Wakes:
    """Delays in locks and who ended them, as far as that is on record; and the `native` ones.

    Where no blocks are on record, those that began in the code of locks and queues, with who held a GIL when they
    ended; without stacks it is not known where they began. And `everywhere` else likewise, if that is asked for.
    """
    delay = np.flatnonzero(rows.kind == _DELAY)
    holds = process.holds
    if len(delay) == 0:
        return Wakes.none()
    exact, in_block = _of_blocks(process, rows, axis, delay)
    # Where blocks are on record, what is none of them is no lock of the interpreter's.
    in_lock = np.zeros(len(delay), np.bool_) if len(process.blocks) else _in_locks(process, rows, axis, delay)
    places = axis.place(rows.thread[delay], rows.end[delay])
    told = np.append(places[in_lock], axis.place(exact.thread, exact.time))
    native = Wakes(*(column[~np.isin(axis.place(native.thread, native.time), told)] for column in native))
    delay, in_lock = delay[~in_block], in_lock[~in_block]
    if len(holds) == 0:
        return exact
    at = np.searchsorted(holds["start"], rows.end[delay], "left") - 1
    holder = np.maximum(at, 0)
    slack = np.where(in_lock, WAKE_SLACK_NS, JOIN_SLACK_NS)
    fits = (at >= 0) & (in_lock | everywhere) & (holds["thread"][holder] != rows.thread[delay])
    fits &= holds["end"][holder] >= np.maximum(rows.start[delay], rows.end[delay] - slack)
    delay, holder = delay[fits], holder[fits]
    longest = np.argsort(rows.start[delay] - rows.end[delay], kind="stable")[:MOST_WAKES]
    delay, holder = delay[longest], holder[longest]
    waker = holds["thread"][holder].astype(np.int64)
    # Where the call tells who ended the delay, that counts before who had the GIL then.
    known = np.isin(axis.place(rows.thread[delay], rows.end[delay]), axis.place(native.thread, native.time))
    delay, waker = delay[~known], waker[~known]
    return Wakes(
        np.concatenate([exact.thread, rows.thread[delay], native.thread]),
        np.concatenate([exact.time, rows.end[delay], native.time]),
        np.concatenate([exact.waker, waker, native.waker]),
    )


def _of_blocks(process: Process, rows: _Rows, axis: LifeAxis, delay: Ints) -> tuple[Wakes, Bools]:
    """The delays that blocks ended with, and who ended these; and which of the delays lie in a block."""
    blocks = process.blocks
    in_block = np.zeros(len(delay), np.bool_)
    if not len(blocks):
        return Wakes.none(), in_block
    begin = axis.place(rows.thread[delay], rows.start[delay])
    start = axis.place(blocks["thread"], blocks["start"])
    order = np.argsort(start, kind="stable")
    # What begins in a block, or an instant before: who sleeps is off its core a little later than it says so.
    around = order[
        np.maximum(np.searchsorted(start[order], axis.place(rows.thread[delay], rows.end[delay]), "left") - 1, 0)
    ]
    in_block = (blocks["thread"][around] == rows.thread[delay]) & (blocks["end"][around] > rows.start[delay])
    in_block &= blocks["start"][around] < rows.end[delay]
    woken = np.flatnonzero(blocks["waker"] >= 0)
    woken = woken[np.argsort(blocks["start"][woken] - blocks["end"][woken], kind="stable")[:MOST_EXACT]]
    at = np.searchsorted(begin, axis.place(blocks["thread"][woken], blocks["woken"][woken]), "left") - 1
    row = delay[np.maximum(at, 0)]
    fits = (at >= 0) & (rows.thread[row] == blocks["thread"][woken]) & (rows.start[row] >= blocks["start"][woken])
    fits &= (rows.end[row] >= blocks["woken"][woken]) & (blocks["waker"][woken] != blocks["thread"][woken])
    row, woken = row[fits], woken[fits]
    return Wakes(rows.thread[row], rows.end[row], blocks["waker"][woken].astype(np.int64)), in_block


def _in_locks(process: Process, rows: _Rows, axis: LifeAxis, delay: Ints) -> Bools:
    """Whether each delay began in the code of locks and queues, by the stack at the thread's release before it."""
    if process.stacks is None or len(process.stacks.table) == 0:
        return np.zeros(len(delay), np.bool_)
    table = process.stacks.table
    locks = np.array([f"/{name}".endswith(_LOCK_FILES) for name in table.strings], np.bool_)
    filled = np.flatnonzero(table.offsets[1:] > table.offsets[:-1])
    in_lock = np.zeros(len(table) + 1, np.bool_)
    in_lock[filled] = locks[table.frames["file"][table.offsets[filled]]]
    hold = last_released(process, axis, rows.thread[delay], rows.start[delay])
    told: Bools = (hold >= 0) & in_lock[process.stacks.hold_end[hold]]
    return told


def _from_states(process: Process) -> _Rows:
    kind = _KIND[process.states["state"]]
    states, kind = process.states[kind >= 0], kind[kind >= 0]
    return _Rows(states["thread"].astype(np.int64), states["start"], states["end"], kind)


def _taken(process: Process, cores: int, start: Ints, end: Ints) -> Ints:
    """For how long others than the process had a core that a thread was ready for, in each interval of being ready.

    They have those `cores` that the process does not run on. Where more threads are ready, each lacks a part of one.
    """
    time = np.concatenate([process.runs["start"], process.runs["end"], start, end])
    order = np.argsort(time, kind="stable")
    time = time[order]
    runs = np.cumsum(np.repeat([1, -1, 0, 0], [len(process.runs)] * 2 + [len(start)] * 2)[order])
    ready = np.cumsum(np.repeat([0, 0, 1, -1], [len(process.runs)] * 2 + [len(start)] * 2)[order])
    part = np.clip((cores - runs) / np.maximum(ready, 1), 0.0, 1.0)
    taken = np.append(0.0, np.cumsum(np.diff(time) * part[:-1]))
    result: Ints = (taken[np.searchsorted(time, end)] - taken[np.searchsorted(time, start)]).astype(np.int64)
    return result


def _from_holds(process: Process) -> _Rows:
    """Holds are CPU demand; what lies between a thread's holds and waits is delay."""
    used = np.concatenate([process.holds[["start", "end", "thread"]], process.waits[["start", "end", "thread"]]])
    is_hold = np.arange(len(used)) < len(process.holds)
    order = np.lexsort((used["end"], used["start"], used["thread"]))
    used, is_hold = used[order], is_hold[order]
    thread = used["thread"].astype(np.int64)
    fresh = np.ones(len(used), np.bool_)
    fresh[1:] = thread[1:] != thread[:-1]
    born = np.array([t.start for t in process.threads], np.int64)
    before = np.where(fresh, born[thread], np.append(0, used["end"][:-1]))
    gap = used["start"] > before
    # The same thread may hold two GILs at once, one within the other: only what is new of a hold counts.
    start = np.maximum(used["start"], np.where(fresh, used["start"], before))
    whole = _Rows(
        np.concatenate([thread[gap], thread[is_hold]]),
        np.concatenate([before[gap], start[is_hold]]),
        np.concatenate([used["start"][gap], np.maximum(used["end"], start)[is_hold]]),
        np.repeat([_DELAY, _CPU], [int(gap.sum()), int(is_hold.sum())]),
    )
    order = np.lexsort((whole.start, whole.thread))
    return whole.keep(order)


def _parents(process: Process, starts: Ints, ends: Ints) -> Ints:
    """Which thread started each one: the one that held a GIL then, or held it last; -1 if none is known.

    A new thread is created by code that holds the GIL.
    """
    holds = process.holds if len(process.holds) else np.empty(0, HOLD)
    at = np.searchsorted(holds["start"], starts, "left") - 1
    parent = np.full(len(starts), -1, np.int64)
    some = at >= 0
    parent[some] = holds["thread"][at[some]]
    living = (parent >= 0) & (starts[parent] < starts) & (ends[parent] >= starts)
    # A thread that is there from the start was not started by another.
    return np.where(living & (starts > process.start), parent, -1)


def _cut(rows: _Rows, axis: LifeAxis, thread: Ints, time: Ints) -> _Rows:
    """Cut the rows of threads at instants, so that each instant in a row becomes the end of one."""
    if len(rows.thread) == 0 or len(thread) == 0:
        return rows
    place = axis.place(thread, time)
    order = np.argsort(place, kind="stable")
    place, time, thread = place[order], time[order], thread[order]
    row = np.searchsorted(axis.place(rows.thread, rows.start), place, "right") - 1
    safe = np.maximum(row, 0)
    inside = (row >= 0) & (rows.thread[safe] == thread) & (rows.start[safe] < time) & (time < rows.end[safe])
    inside[1:] &= place[1:] != place[:-1]
    row, time = row[inside], time[inside]
    # A row that is cut comes twice (or more often) and is then shortened to its parts.
    cut = rows.keep(np.sort(np.concatenate([np.arange(len(rows.thread)), row])))
    at = row + 1 + np.arange(len(row))
    cut.start[at] = time
    cut.end[at - 1] = time
    return cut


def _joins(rows: _Rows, starts: Ints, ends: Ints) -> Ints:
    """For each row the last row of the thread whose end it waits for, -1 if none: delays that end as a thread ends.

    Only threads that began before the delay and ended before the delayed one can be joined by it.
    """
    joined = np.full(len(rows.thread), -1, np.int64)
    delay = np.flatnonzero(rows.kind == _DELAY)
    if len(ends) == 0 or len(delay) == 0:
        return joined
    final = np.searchsorted(rows.thread, np.arange(len(ends)), "right") - 1
    empty = rows.thread[np.maximum(final, 0)] != np.arange(len(ends))
    by_end = np.argsort(ends, kind="stable")
    nearest = np.searchsorted(ends[by_end], rows.end[delay])
    own, begin, finish = rows.thread[delay], rows.start[delay], rows.end[delay]
    best = np.full(len(delay), JOIN_SLACK_NS + 1)
    for offset in range(-NEIGHBOURS, NEIGHBOURS):
        other = by_end[np.clip(nearest + offset, 0, len(ends) - 1)]
        apart = np.abs(ends[other] - finish)
        fits = (apart < best) & (other != own) & (starts[other] <= begin) & ~empty[other]
        fits &= (ends[other] > begin) & (ends[other] < ends[own])
        joined[delay[fits]] = final[other[fits]]
        best = np.where(fits, apart, best)
    return joined


def _steps(rows: _Rows, awaiting: Bools, borders: Ints) -> Ints:
    """The number of each row's step: a delay and the CPU demand after it, or many of both if there are too many."""
    count = len(rows.thread)
    if count == 0:
        return np.empty(0, np.int64)
    border = np.zeros(count, np.bool_)
    border[1:] = rows.thread[1:] != rows.thread[:-1]
    border |= awaiting
    after = borders + 1
    border[after[after < count]] = True
    fine = border.copy()
    sleeps = (rows.kind == _DELAY) | (rows.kind == _HELD)
    fine[1:] |= sleeps[1:] & ~sleeps[:-1]
    if int(fine.sum()) > MOST_STEPS:
        span = int(rows.end.max() - rows.start.min())
        bucket = rows.start // max(span * (int(rows.thread.max()) + 1) // MOST_STEPS, 1)
        fine = border
        fine[1:] |= bucket[1:] != bucket[:-1]
    fine[0] = False
    return np.cumsum(fine)

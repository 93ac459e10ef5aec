"""What each thread would do without a GIL: its program order as steps of delay and CPU demand.

Waits fall away, and so does time in which other threads of the process had all its cores. What a thread slept, it
sleeps again; what it ran, it runs again. Where something else kept it from a core, another program or a limit, it does
so again: for that long the core is not the process's.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.intervals import last_released
from giltrace.analysis.measure.roles import python_threads
from giltrace.analysis.replay.cores import taken
from giltrace.analysis.replay.native_locks import MOST_WAKES, Wakes
from giltrace.analysis.replay.rows import (
    CPU,
    DELAY,
    READY,
    Rows,
    cut_rows,
    last_row,
    read_rows,
    steps_of,
)
from giltrace.recording.order import distinct, smallest
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.model import HOLD, Array, Process
from giltrace.timeline.once import once

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
#: So many rows are added up at a time.
_PIECE = 1 << 19
#: Who blocks in code of these files is woken by another thread, not by the world.
_LOCK_FILES = ("/threading.py", "/queue.py", "/concurrent/futures/thread.py", "/concurrent/futures/_base.py")


class Program(NamedTuple):
    """The steps of all threads, those of thread i being ``first[i]:first[i + 1]``.

    A step sleeps for `delay` ns, or until the step `awaits` is done (-1: none), and then takes a core for `cpu` ns: its
    own running, and what others ran there meanwhile.
    Then it starts the threads `spawns[step]`. `roots` maps threads that no step starts to when they start, in ns.
    For `tail` ns after the last step of all nothing happens. Nothing waits for the end of threads in the `background`:
    those of a native library.
    """

    first: Ints
    delay: Ints
    cpu: Ints
    awaits: Ints
    spawns: dict[int, list[int]]
    roots: dict[int, int]
    tail: int
    background: frozenset[int] = frozenset()


def read_program(
    process: Process, cores: int, native: Wakes, *, woken: bool = False, without: tuple[int, ...] = ()
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
    rows = _rows(process, without)
    starts, ends = rows.axis.starts, rows.axis.ends
    parent = _parents(process, starts, ends)
    child = np.flatnonzero(parent >= 0)
    wakes = _wakes(process, rows, native, everywhere=woken, without=without)
    rows = cut_rows(rows, np.append(parent[child], wakes.waker), np.append(starts[child], wakes.time))
    spawner = last_row(rows, parent[child], starts[child])
    awaited = _joins(process, rows)
    waker = last_row(rows, wakes.waker, wakes.time)
    sleeper = last_row(rows, wakes.thread, wakes.time)
    free = (waker >= 0) & (sleeper >= 0)
    free[free] = awaited[sleeper[free]] < 0
    awaited[sleeper[free]] = waker[free]
    # A step ends where another thread depends on it.
    waits = awaited >= 0
    borders = distinct(np.concatenate([spawner, awaited[waits]]))
    step = steps_of(rows, waits, borders[borders >= 0])
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
    rows = read_rows(process)
    axis = rows.axis
    woken = _wakes(process, rows, native, everywhere=False)
    awaited = _joins(process, rows)
    joined = np.flatnonzero(awaited >= 0)
    row = np.concatenate([last_row(rows, woken.thread, woken.time), joined])
    waker = np.concatenate([woken.waker, rows.thread[awaited[joined]]])
    ended = axis.ends[waker] - rows.end[row] < JOIN_SLACK_NS
    lived = (axis.ends - axis.starts)[waker]
    kept = ~ended | ((rows.end - rows.start)[row] >= TOLD_TO_END * lived)
    row, waker = row[kept], waker[kept]
    return Dependencies(rows.thread[row], rows.end[row], waker, _parents(process, axis.starts, axis.ends))


def _assemble(process: Process, cores: int, rows: Rows, step: Ints, awaited: Ints, spawner: dict[int, int]) -> Program:
    """Add rows up to their steps; `awaited` (per row) and `spawner` (per thread that was started) are rows."""
    count = int(step[-1]) + 1 if len(step) else 0
    length = rows.end - rows.start
    ready = np.flatnonzero(rows.kind == READY)
    length[ready] = taken(process, cores, rows.thread[ready], rows.start[ready], rows.end[ready])
    head = np.searchsorted(step, np.arange(count))
    delay, cpu = np.zeros((2, count), np.int64)
    for at in range(0, len(step), _PIECE):
        own = slice(at, at + _PIECE)
        takes = (rows.kind[own] == CPU) | (rows.kind[own] == READY)
        for total, some in ((delay, ~takes & (awaited[own] < 0)), (cpu, takes)):
            total += np.bincount(step[own], np.where(some, length[own], 0), count).astype(np.int64)
    python = python_threads(process)
    background = frozenset(np.flatnonzero(~python).tolist()) if python.any() else frozenset[int]()
    foreground = rows.end[python[rows.thread]] if background else rows.end
    program = Program(
        first=np.searchsorted(rows.thread[head], np.arange(len(process.threads) + 1)),
        delay=delay,
        cpu=cpu,
        awaits=np.where(awaited[head] >= 0, step[awaited[head]], -1) if count else np.empty(0, np.int64),
        spawns={},
        roots={},
        tail=process.end - int(foreground.max(initial=process.start)),
        background=background,
    )
    for thread, known in enumerate(process.threads):
        row = spawner.get(thread, -1)
        if row >= 0:
            program.spawns.setdefault(int(step[row]), []).append(thread)
        else:
            program.roots[thread] = known.start - process.start
    return program


def _rows(process: Process, without: tuple[int, ...]) -> Rows:
    """See `read_rows`; but nobody is blocked in these locks."""
    rows = read_rows(process)
    if not without:
        return rows
    delay = np.flatnonzero(rows.kind == DELAY)
    _, in_block = _of_blocks(rows, delay, process.blocks[np.isin(process.blocks["lock"], without)])
    return rows.keep(~np.isin(np.arange(len(rows.thread)), delay[in_block]))


def _wakes(process: Process, rows: Rows, native: Wakes, *, everywhere: bool, without: tuple[int, ...] = ()) -> Wakes:
    """Delays in locks and who ended them, as far as that is on record; and the `native` ones.

    Where no blocks are on record, those that began in the code of locks and queues, with who held a GIL when they
    ended; without stacks it is not known where they began. And `everywhere` else likewise, if that is asked for.
    `rows` are those `without` some locks.
    """
    found = _delays(process, without)
    if len(found.row) == 0:
        return Wakes.none()
    axis, exact = rows.axis, found.exact
    # By where each row ends they are in order.
    locks = np.sort(np.append(rows.reach[found.row[found.in_lock]], axis.place(exact.thread, exact.time)))
    told = axis.place(native.thread, native.time)
    elsewhere = np.append(locks, -1)[np.searchsorted(locks, told)] != told
    native, told = Wakes(*(column[elsewhere] for column in native)), told[elsewhere]
    chosen = np.flatnonzero(found.fits if everywhere else found.fits & found.in_lock)
    delay = found.row[chosen]
    longest = smallest(rows.start[delay] - rows.end[delay], MOST_WAKES)
    delay, waker = delay[longest], found.holder[chosen[longest]].astype(np.int64)
    # Where the call tells who ended the delay, that counts before who had the GIL then.
    known = np.isin(rows.reach[delay], told)
    delay, waker = delay[~known], waker[~known]
    return Wakes(
        np.concatenate([exact.thread, rows.thread[delay], native.thread]),
        np.concatenate([exact.time, rows.end[delay], native.time]),
        np.concatenate([exact.waker, waker, native.waker]),
    )


class _Delays(NamedTuple):
    """The rows that are delays: whether each began `in_lock`s and queues, the thread that was the `holder` of a GIL at
    its end, or last before, and whether it `fits`: that is another one, and had the GIL while the delay went on.

    `exact` are the wakes on record; where there are such, what lies in no block is in no lock, and what lies in one
    does not fit.
    """

    row: Ints
    in_lock: Bools
    holder: npt.NDArray[np.uint32]
    fits: Bools
    exact: Wakes


@once
def _delays(process: Process, without: tuple[int, ...]) -> _Delays:
    rows, holds = _rows(process, without), process.holds
    delay = np.flatnonzero(rows.kind == DELAY)
    exact, in_block = _of_blocks(rows, delay, process.blocks[~np.isin(process.blocks["lock"], without)])
    nobody = np.zeros(len(delay), np.bool_)
    if len(holds) == 0 or len(delay) == 0:
        return _Delays(delay, nobody, np.zeros(len(delay), np.uint32), nobody, exact)
    in_lock = nobody if len(process.blocks) else _in_locks(process, rows, delay)
    end = rows.end[delay]
    at = np.searchsorted(holds["start"], end, "left") - 1
    hold = np.maximum(at, 0)
    holder = holds["thread"][hold]
    slack = np.where(in_lock, WAKE_SLACK_NS, JOIN_SLACK_NS)
    fits = (at >= 0) & (holder != rows.thread[delay]) & ~in_block
    fits &= holds["end"][hold] >= np.maximum(rows.start[delay], end - slack)
    return _Delays(delay, in_lock, holder, fits, exact)


def _of_blocks(rows: Rows, delay: Ints, blocks: Array) -> tuple[Wakes, Bools]:
    """The delays that `blocks` ended with, and who ended these; and which of the delays lie in a block."""
    if not len(blocks) or not len(delay):
        return Wakes.none(), np.zeros(len(delay), np.bool_)
    axis = rows.axis
    start = axis.place(blocks["thread"], blocks["start"])
    order = np.argsort(start, kind="stable")
    # What begins in a block, or an instant before: who sleeps is off its core a little later than it says so.
    before = np.searchsorted(start[order], rows.reach[delay], "left") - 1
    around = order[np.maximum(before, 0)]
    in_block: Bools = (before >= 0) & (blocks["thread"][around] == rows.thread[delay])
    in_block &= (blocks["end"][around] > rows.start[delay]) & (blocks["start"][around] < rows.end[delay])
    woken = np.flatnonzero(blocks["waker"] >= 0)
    woken = woken[smallest(blocks["start"][woken] - blocks["end"][woken], MOST_EXACT)]
    begin = axis.place(rows.thread[delay], rows.start[delay])
    at = np.searchsorted(begin, axis.place(blocks["thread"][woken], blocks["woken"][woken]), "left") - 1
    row = delay[np.maximum(at, 0)]
    fits = (at >= 0) & (rows.thread[row] == blocks["thread"][woken])
    fits &= (rows.end[row] >= blocks["woken"][woken]) & (blocks["waker"][woken] != blocks["thread"][woken])
    row, woken = row[fits], woken[fits]
    return Wakes(rows.thread[row].astype(np.int64), rows.end[row], blocks["waker"][woken].astype(np.int64)), in_block


def _in_locks(process: Process, rows: Rows, delay: Ints) -> Bools:
    """Whether each delay began in the code of locks and queues, by the stack at the thread's release before it."""
    if process.stacks is None or len(process.stacks.table) == 0:
        return np.zeros(len(delay), np.bool_)
    table = process.stacks.table
    locks = np.array([f"/{name}".endswith(_LOCK_FILES) for name in table.strings], np.bool_)
    filled = np.flatnonzero(table.offsets[1:] > table.offsets[:-1])
    in_lock = np.zeros(len(table) + 1, np.bool_)
    in_lock[filled] = locks[table.frames["file"][table.offsets[filled]]]
    hold = last_released(process, rows.axis, rows.thread[delay], rows.start[delay])
    told: Bools = (hold >= 0) & in_lock[process.stacks.hold_end[hold]]
    return told


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


def _joins(process: Process, rows: Rows) -> Ints:
    """For each row the last row of the thread whose end it waits for, -1 if none: delays that end as a thread ends.

    Only threads that began before the delay and ended before the delayed one can be joined by it. Where blocks are on
    record, so is who joined whom.
    """
    starts, ends = rows.axis.starts, rows.axis.ends
    joined = np.full(len(rows.thread), -1, np.int64)
    if len(process.blocks):
        return joined
    delay = np.flatnonzero(rows.kind == DELAY)
    # Of millions of delays hardly any end where a thread does.
    by_end = np.sort(ends)
    first, last = (np.searchsorted(by_end, rows.end[delay] + slack) for slack in (-JOIN_SLACK_NS, JOIN_SLACK_NS + 1))
    delay = delay[first < last]
    if len(delay) == 0:
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

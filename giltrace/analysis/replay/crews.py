"""Threads that take jobs from one queue: what one of them did, the others could have done instead.

A replay keeps each thread's own work. Of such threads, some may have done nearly all of it only because the others were
kept waiting: a bound that is to hold must let them share it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.analysis.measure import usage
from giltrace.analysis.measure.roles import roles
from giltrace.analysis.replay.program import Program
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.model import Array, Process
from giltrace.timeline.once import once

#: Who was seen in code of these files takes jobs, or hands them out.
_QUEUE_FILES = ("/queue.py", "/concurrent/futures/thread.py", "/multiprocessing/pool.py")
#: Without a queue that is seen, threads that were blocked so often each, on average, may take jobs by that lock ...
_JOBS = 10
#: ... if one of them did so much more than they all did on average.
_UNEVEN = 1.25


class Crew(NamedTuple):
    """The numbers of `threads` that do the same work; `at_once` of them lived at the same time at most.

    They were kept waiting for `waited` ns, all together: more than that none of them can do for others.
    """

    threads: Ints
    at_once: int
    waited: int


def crews(process: Process, waits: Array, chosen: Bools) -> tuple[Crew, ...]:
    """The crews that `chosen` threads (bool, one per thread) belong to: all that share their role, at least two.

    The `waits` would fall away; of threads, from start to end.
    """
    waited = usage.sum_by_thread(process, waits)
    if not len(process.threads):
        return ()
    of_thread = np.unique(np.array(roles(process)), return_inverse=True)[1].ravel()
    order, found = np.argsort(of_thread, kind="stable"), []
    for threads in np.split(order, np.cumsum(np.bincount(of_thread))[:-1]):
        most = _at_once(process, threads) if len(threads) > 1 and chosen[threads].any() else 0
        if most > 1:
            found.append(Crew(threads, most, int(waited[threads].sum())))
    return tuple(found)


@once
def fed_crews(process: Process) -> tuple[Crew, ...]:
    """The crews whose threads were seen where jobs are taken from a queue, with what they waited for a GIL."""
    return crews(process, process.waits, _fed(process))


def lock_crews(process: Process, program: Program, locks: tuple[int, ...]) -> tuple[Crew, ...]:
    """The crews of threads that were blocked in these locks, which take jobs as far as can be told.

    The lock may be what they take them by: who has it takes the next one, too.
    """
    blocks = process.blocks[np.isin(process.blocks["lock"], locks)]
    fed, blocked = _fed(process), np.bincount(blocks["thread"], minlength=len(process.threads))
    edges = np.append(0, np.cumsum(program.delay + program.cpu))[program.first]
    worked = np.diff(edges)
    return tuple(
        crew
        for crew in crews(process, blocks, blocked > 0)
        if fed[crew.threads].any()
        or (
            blocked[crew.threads].sum() >= _JOBS * len(crew.threads)
            and worked[crew.threads].max() > _UNEVEN * worked[crew.threads].mean()
        )
    )


@once
def _fed(process: Process) -> Bools:
    """Which threads were seen where jobs are taken from a queue."""
    fed = np.zeros(len(process.threads), np.bool_)
    if process.stacks is None or not len(process.stacks.table):
        return fed
    within = np.append(process.stacks.table.within(lambda file: f"/{file}".endswith(_QUEUE_FILES)), False)
    fed[process.holds["thread"][within[process.stacks.hold_end]]] = True
    return fed


def _at_once(process: Process, threads: Ints) -> int:
    """How many of the threads lived at the same time, at most."""
    lives = [(process.threads[at].start, process.threads[at].end) for at in threads.tolist()]
    edges = sorted([(start, 1) for start, _ in lives] + [(end, -1) for _, end in lives])
    return int(np.cumsum([change for _, change in edges]).max(initial=0))


def without_work(program: Program, known: tuple[Crew, ...]) -> Program:
    """The program with crews that do nothing, wait for nobody, and keep nobody waiting."""
    theirs = _steps(program, np.concatenate([crew.threads for crew in known]))
    return program._replace(
        delay=np.where(theirs, 0, program.delay),
        cpu=np.where(theirs, 0, program.cpu),
        awaits=np.where(theirs, -1, program.awaits),
    )


def shared(program: Program, crew: Crew) -> int:
    """How long (ns) a crew takes at least for what it slept and ran, if all of it work, to the end."""
    theirs = _steps(program, crew.threads)
    return int((program.delay + program.cpu)[theirs].sum()) // crew.at_once


def levelled(busy: Ints, known: tuple[Crew, ...]) -> Ints:
    """How long each thread was busy (ns), if crews share that."""
    found: Ints = busy.copy()
    for crew in known:
        found[crew.threads] = np.minimum(busy[crew.threads], busy[crew.threads].sum() // crew.at_once)
    return found


def _steps(program: Program, threads: Ints) -> Bools:
    count = np.diff(program.first)
    chosen: Bools = np.isin(np.repeat(np.arange(len(count)), count), threads)
    return chosen

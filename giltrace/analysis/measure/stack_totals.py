"""Time spent waiting or holding, added up by thread and whole stack, and the frames of these stacks."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.activity import WITHOUT, Doing, activity
from giltrace.analysis.measure.attribution import attribute
from giltrace.analysis.measure.block_causes import BlockCause, block_causes
from giltrace.analysis.measure.expressions import Expressions
from giltrace.analysis.measure.roles import python_threads
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.stretches import cut_process, stretches
from giltrace.analysis.measure.usage import lengths
from giltrace.analysis.site import Frame
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process

CUT_OFF: Frame = ("(outer frames cut off)", "", 0)


class StackTotals(NamedTuple):
    """One row per thread and stack (-1: none known), by thread and then the largest `ns` first; none of 0 ns."""

    thread: Ints
    stack: Ints
    ns: Ints


def waiting(process: Process) -> StackTotals:
    """How long each chosen thread waited in each stack: where the victims stood."""
    told = process.of_chosen(process.waits)
    waits = process.waits[told]
    return _totals(waits["thread"], Sites(process).wait_stacks()[told], lengths(waits))


def holding(process: Process) -> StackTotals:
    """How long each chosen thread held a GIL in each stack: what was seen of it, and what stands for that."""
    held = stretches(process)
    told = process.of_chosen(held.holds)
    holds = held.holds[told]
    return _totals(holds["thread"], held.stack[told], lengths(holds))


def culprits(process: Process) -> StackTotals:
    """How long the chosen threads waited while each thread held the GIL in each stack.

    What is missing to the waited time fell to nobody: the GIL was free, and the waiter was being woken up.
    """
    held = stretches(process)
    key, hold_class = np.unique(_key(held.holds["thread"], held.stack), return_inverse=True)
    everyone, told = np.zeros(len(process.waits), np.int64), process.of_chosen(process.waits)
    found = attribute(cut_process(process), everyone, hold_class.ravel(), told)
    thread, stack = _apart(key[found.culprit])
    return _ordered(thread, stack, found.ns)


def without(process: Process, recorded_ns: int) -> list[tuple[str, StackTotals]]:
    """How long each chosen thread that runs Python was without the GIL in each stack, by what it did, in words.

    `recorded_ns` is when the recording began, in ns since 1970: source that is older tells what was called.
    """
    found = activity(process)
    told = np.isin(found.doing, WITHOUT) & python_threads(process)[found.thread]
    if process.chosen is not None:
        told &= process.chosen[found.thread]
    kind, locked = found.doing.astype(np.int64), np.flatnonzero(found.doing == Doing.LOCK)
    kind[locked] = len(Doing) + block_causes(process, Expressions(process, recorded_ns))[found.block(locked)]
    totals = []
    for one in np.unique(kind[told]).tolist():
        mine = np.flatnonzero(told & (kind == one))
        name = f"blocked: {BlockCause(one - len(Doing)).label}" if one >= len(Doing) else Doing(one).label
        totals.append((name, _totals(found.thread[mine], found.stack[mine], found.length(mine))))
    return totals


def frames(process: Process, stack: int) -> list[Frame]:
    """The frames of a stack, outermost first; empty where none is known."""
    if process.stacks is None or stack < 0:
        return []
    table = process.stacks.table
    own = table.frames[table.offsets[stack] : table.offsets[stack + 1]][::-1].tolist()
    told = [(table.strings[function], table.strings[file], line) for function, file, line, *_ in own]
    return [CUT_OFF, *told] if table.truncated[stack] else told


def _key(thread: npt.NDArray[Any], stack: npt.NDArray[Any]) -> Ints:
    return thread.astype(np.int64) << 32 | (stack.astype(np.int64) + 1)


def _apart(key: Ints) -> tuple[Ints, Ints]:
    return key >> 32, (key & 0xFFFFFFFF) - 1


def _totals(thread: npt.NDArray[Any], stack: npt.NDArray[Any], length: Ints) -> StackTotals:
    key, at = np.unique(_key(thread, stack), return_inverse=True)
    # bincount adds in float64: exact up to 2**53 ns, which is 104 days.
    ns = np.bincount(at.ravel(), weights=length, minlength=len(key)).astype(np.int64)
    return _ordered(*_apart(key), ns)


def _ordered(thread: Ints, stack: Ints, ns: Ints) -> StackTotals:
    order = np.lexsort((-ns, thread))
    order = order[ns[order] > 0]
    return StackTotals(thread[order], stack[order], ns[order])

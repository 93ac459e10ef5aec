"""Who held the GIL during each wait: the culprit, which is the thread that had it for most of that, and the next two.

The holds of a thread within a wait count together. Where the culprit stood is told by its line: of the lines in its
stretches the one that took most of the wait.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.attribution import Overlaps, each_overlap, overlaps
from giltrace.analysis.measure.stretches import Stretches, cut_process
from giltrace.recording.order import heads, stable_order
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process

#: So many holders of each wait are told.
MOST = 3
# One pass over all waits and holds for each thread costs so much less than one overlap as this.
_PASS_COST = 0.2


class Culprits(NamedTuple):
    """Who held the GIL during each wait, and how much of that; the first holder is the culprit.

    `thread` and `ns` have shape (waits, `MOST`): the threads that held it longest, of equal ones the first, with the
    time that each did; -1 and 0 where there were no more. `stretch` (one per wait) is the row of the `Stretches` that
    stands for what the culprit did: on the line that took most of the wait, the longest; -1 where nobody held the GIL.
    """

    thread: Ints
    ns: Ints
    stretch: Ints


def find_culprits(process: Process, held: Stretches, line: npt.NDArray[np.int64]) -> Culprits:
    """Find the culprits of all waits; `line` (one per stretch of `held`) is a number for its line, 0 or greater."""
    thread = np.full((MOST, len(process.waits)), -1, np.int64)
    ns = np.zeros(thread.shape, np.int64)
    stretch = np.full(len(process.waits), -1, np.int64)
    found = overlaps(cut_process(process), None)
    if len(found.wait):
        holder = held.holds["thread"][found.hold].astype(np.int64)
        present = np.unique(holder)
        one_by_one = len(present) * (len(found.wait) + len(holder)) * _PASS_COST
        if one_by_one <= int((found.high - found.low).sum()):
            _thread_by_thread(found, holder, present, thread, ns)
        else:
            _overlap_by_overlap(found, holder, thread, ns)
        _main_stretches(_of_culprits(found, holder, thread[0]), line, stretch)
    return Culprits(thread.T, ns.T, stretch)


def _thread_by_thread(found: Overlaps, holder: Ints, present: Ints, thread: Ints, ns: Ints) -> None:
    """One pass over all waits for each thread that held, by prefix sums: for few threads."""
    best_thread, best_ns = (np.ascontiguousarray(column[:, found.wait]) for column in (thread, ns))
    first, last = (_rows_by(holder[turn], present) for turn in (found.low, found.high - 1))
    for one, begun, ended in zip(present.tolist(), first, last, strict=True):
        spent = np.append(0, np.cumsum(np.where(holder == one, found.length, 0)))
        lost = spent[found.high] - spent[found.low]
        lost[begun] -= found.before[begun]
        lost[ended] -= found.beyond[ended]
        # Threads come in order: of equal shares the earlier one stays ahead.
        better = np.flatnonzero(lost > best_ns[-1])
        new_ns = lost[better]
        new_thread = np.full(len(better), one)
        for place in range(MOST):
            old_thread, old_ns = best_thread[place, better], best_ns[place, better]
            ahead = (new_ns > old_ns) | ((new_ns == old_ns) & (new_thread < old_thread))
            best_thread[place, better] = np.where(ahead, new_thread, old_thread)
            best_ns[place, better] = np.where(ahead, new_ns, old_ns)
            new_thread, new_ns = np.where(ahead, old_thread, new_thread), np.where(ahead, old_ns, new_ns)
    thread[:, found.wait], ns[:, found.wait] = best_thread, best_ns


def _rows_by(thread: Ints, present: Ints) -> list[Ints]:
    """The rows of each of the threads that are `present`."""
    order = stable_order(thread, int(thread.max()) + 1)
    return np.split(order, np.searchsorted(thread[order], present[1:]))


def _overlap_by_overlap(found: Overlaps, holder: Ints, thread: Ints, ns: Ints) -> None:
    """Every overlap of a wait with a hold, in chunks: for many threads."""
    threads = int(holder.max()) + 1
    for row, turn, lost in each_overlap(found):
        key = row * threads + holder[turn]
        order = np.argsort(key)
        head = heads(key[order])
        left = np.add.reduceat(lost[order], head)
        row, who = np.divmod(key[order[head]], threads)
        head = heads(row)
        wait = found.wait[row[head]]
        for place in range(MOST):
            chosen = _first_largest(left, head)
            thread[place, wait] = np.where(left[chosen] > 0, who[chosen], -1)
            ns[place, wait] = left[chosen]
            left[chosen] = 0


def _main_stretches(found: Overlaps, line: Ints, result: Ints) -> None:
    """Note in `result` the stretch that stands for what each wait's culprit did; `found` are its turns only."""
    lines = int(line.max()) + 1
    single = found.high - found.low == 1
    result[found.wait[single]] = found.hold[found.low[single]]
    found = Overlaps(found.hold, found.length, *(column[~single] for column in found[2:]))
    for row, turn, lost in each_overlap(found):
        stretch = found.hold[turn]
        key = row * lines + line[stretch]
        order = np.argsort(key, kind="stable")
        lost, stretch = lost[order], stretch[order]
        of_line = heads(key[order])
        row = key[order[of_line]] // lines
        of_wait = heads(row)
        main_line = _first_largest(np.add.reduceat(lost, of_line), of_wait)
        result[found.wait[row[of_wait]]] = stretch[_first_largest(lost, of_line)[main_line]]


def _first_largest(values: Ints, head: Ints) -> Ints:
    """Where the largest value of each group is, the first of equal ones; groups begin at `head`."""
    most = np.maximum.reduceat(values, head)
    largest = np.flatnonzero(values == np.repeat(most, np.diff(head, append=len(values))))
    return largest[np.searchsorted(largest, head)]


def _of_culprits(found: Overlaps, holder: Ints, culprit: Ints) -> Overlaps:
    """The same with only the turns of each wait's culprit; `holder` is the thread of each turn."""
    count = len(holder)
    order = stable_order(holder, int(holder.max()) + 1)
    # The turns by thread and then by time, as single integers.
    key = holder[order] * count + order
    mine = culprit[found.wait] * count
    low, high = np.searchsorted(key, mine + found.low), np.searchsorted(key, mine + found.high)
    first, last = order[low] == found.low, order[high - 1] == found.high - 1
    return Overlaps(
        found.hold[order],
        found.length[order],
        found.wait,
        low,
        high,
        np.where(first, found.before, 0),
        np.where(last, found.beyond, 0),
    )

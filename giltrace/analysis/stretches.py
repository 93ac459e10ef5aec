"""What holders did meanwhile: holds cut into stretches of one stack each, by what waiters saw of them.

A waiter looks at the holder at instants that do not depend on what the program does (`Process.samples`). Each sample
stands for the stretch of its hold up to half way to the next. A hold that no sample fell into is taken to have done
what like holds did: those of the same thread role whose stacks at the acquire and at the release are the same. Only
where there are no such samples either is it the line that gave the GIL up, of which it is only known that it ended the
hold.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.intervals import hold_at
from giltrace.analysis.roles import roles
from giltrace.timeline.axis import Ints, concatenated_ranges
from giltrace.timeline.model import Array, Process

Numbers = npt.NDArray[np.int32]


class Source(IntEnum):
    """How it is known what a holder did in a stretch."""

    UNKNOWN = 0
    RELEASE = 1  #: only where the GIL was given up, or, where that is missing, taken
    REQUEST = 2  #: a waiter looked when it asked for the GIL
    ALIKE = 3  #: samples of like holds
    SAMPLE = 4  #: samples of this one


class Stretches(NamedTuple):
    """Holds cut up: `holds` (dtype `HOLD`, sorted by start) are stretches, `of` says of which hold, `stack` is what
    was done (-1: not known) and `source` a `Source`; one row each, and every hold has one at least.
    """

    holds: Array
    of: Ints
    stack: Numbers
    source: npt.NDArray[np.uint8]


def stretches(process: Process) -> Stretches:
    """Cut the holds of one process."""
    holds = process.holds
    stack, source = unsampled(process)
    sample, hold = _seen(process)
    number = np.arange(len(holds))
    if process.stacks is None or len(sample) == 0:
        return Stretches(holds, number, stack, source)
    # From one sample to the next the boundary is half way, in the order of holds and then of time.
    count = np.bincount(hold, minlength=len(holds))
    rows = np.maximum(count, 1)
    of = np.repeat(number, rows)
    cut = holds[of]
    time = process.samples["time"][sample]
    inner = np.flatnonzero(hold[1:] == hold[:-1])
    half = time[inner] + (time[inner + 1] - time[inner]) // 2
    first = np.cumsum(rows) - rows
    place = concatenated_ranges(first[count > 0], (first + count)[count > 0])
    cut["end"][place[inner]] = half
    cut["start"][place[inner + 1]] = half
    stack, source = stack[of], source[of]
    stack[place] = process.stacks.sample[sample]
    source[place] = Source.SAMPLE
    return Stretches(cut, of, stack, source)


def main_stacks(process: Process) -> Numbers:
    """The stack that stands for each hold as a whole, -1 if unknown: of its samples the most frequent."""
    stack, _ = unsampled(process)
    sample, hold = _seen(process)
    if process.stacks is None or len(sample) == 0:
        return stack
    key = hold << 32 | process.stacks.sample[sample].astype(np.int64)
    kind, count = np.unique(key, return_counts=True)
    order = np.argsort(count, kind="stable")  # the most frequent of each hold is assigned last
    stack[kind[order] >> 32] = (kind[order] & 0xFFFFFFFF).astype(np.int32)
    return stack


def unsampled(process: Process) -> tuple[Numbers, npt.NDArray[np.uint8]]:
    """What each hold did by what is known beside its own samples, and the `Source` of that."""
    holds, known = process.holds, process.stacks
    source = np.full(len(holds), Source.UNKNOWN, np.uint8)
    if known is None:
        return np.full(len(holds), -1, np.int32), source
    chosen = np.where(known.hold_end >= 0, known.hold_end, known.hold_begin).astype(np.int32)
    source[chosen >= 0] = Source.RELEASE
    _as_alike(process, chosen, source)
    asked = hold_at(process, process.switch_requests["gil"], process.switch_requests["time"])
    seen = np.flatnonzero((asked >= 0) & (known.request >= 0))
    # Of several requests to one hold the first counts: it is assigned last.
    chosen[asked[seen[::-1]]] = known.request[seen[::-1]]
    source[asked[seen]] = Source.REQUEST
    return chosen, source


def _seen(process: Process) -> tuple[Ints, Ints]:
    """The samples that show a holder's stack, in order of their holds and then of time; and these holds."""
    if process.stacks is None or len(process.samples) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    hold = hold_at(process, process.samples["gil"], process.samples["time"])
    sample = np.flatnonzero((hold >= 0) & (process.stacks.sample >= 0))
    sample = sample[np.argsort(hold[sample], kind="stable")]
    return sample, hold[sample]


def _as_alike(process: Process, chosen: Numbers, source: npt.NDArray[np.uint8]) -> None:
    """Let holds without samples share in those of like holds, each sample in equally much of their time."""
    sample, hold = _seen(process)
    if process.stacks is None or len(sample) == 0:
        return
    kind = _kinds(process)
    sampled = np.zeros(len(kind), np.bool_)
    sampled[hold] = True
    rest = np.flatnonzero(~sampled)
    # Samples by kind of hold: those of kind k are low[k]:low[k + 1].
    order = np.argsort(kind[hold], kind="stable")
    seen = process.stacks.sample[sample][order]
    low = np.searchsorted(kind[hold][order], np.arange(int(kind.max()) + 2))
    rest = rest[low[kind[rest] + 1] > low[kind[rest]]]
    rest = rest[np.argsort(kind[rest], kind="stable")]
    if len(rest) == 0:
        return
    own = kind[rest]
    length = (process.holds["end"][rest] - process.holds["start"][rest]).astype(np.float64) + 1
    spent = np.cumsum(length)
    head = np.flatnonzero(np.append(True, own[1:] != own[:-1]))
    size = np.diff(head, append=len(own))
    before = np.repeat(spent[head] - length[head], size)
    whole = np.repeat(np.add.reduceat(length, head), size)
    place = (spent - length / 2 - before) / whole  # the middle of each hold on the way through its kind's time
    count = low[own + 1] - low[own]
    chosen[rest] = seen[low[own] + np.minimum((place * count).astype(np.int64), count - 1)]
    source[rest] = Source.ALIKE


def _kinds(process: Process) -> Ints:
    """A number for each hold: equal for those of one role that began and ended in the same stacks."""
    assert process.stacks is not None
    number = {role: at for at, role in enumerate(sorted(set(roles(process))))}
    role = np.array([number[role] for role in roles(process)], np.int64)[process.holds["thread"]]
    stacks = len(process.stacks.table) + 1
    key = (role * stacks + process.stacks.hold_begin + 1) * stacks + process.stacks.hold_end + 1
    return np.unique(key, return_inverse=True)[1].ravel()

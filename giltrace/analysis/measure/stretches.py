"""What holders did meanwhile: holds cut into stretches of one stack each, by what waiters saw of them.

A waiter looks at the holder at instants that do not depend on what the program does (`Process.samples`). In a hold with
`ENOUGH` samples each stands for the stretch up to half way to the next. Shorter holds share in the samples of like
holds: those of the same thread role whose stacks at the acquire and at the release are the same, and that took about as
long if there are samples enough of these. A waiter that was
woken up for nothing takes a while to look again, so the first moments of holds are seen less often than the others; a
sample therefore counts for as much contended time as lies nearest to it, measured from the begin of each of these
holds. Only where there are no such samples it is the line that gave the GIL up, of which it is only known that it ended
the hold.
"""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.dealing import BLOCK, Dealing, Lengths, Seen, among
from giltrace.analysis.measure.intervals import hold_at, requested_holds
from giltrace.analysis.measure.roles import roles
from giltrace.recording.order import distinct
from giltrace.timeline import gathered
from giltrace.timeline.axis import Ints, concatenated_ranges, ended, union
from giltrace.timeline.model import Array, Process, Stacks
from giltrace.timeline.once import once

Numbers = npt.NDArray[np.int32]

#: A hold with so many samples stands for itself.
ENOUGH = 4
_ALL = slice(None)


class Source(IntEnum):
    """How it is known what a holder did in a stretch."""

    UNKNOWN = 0
    ACQUIRE = 1  #: only where the GIL was taken
    RELEASE = 2  #: only where the GIL was given up
    REQUEST = 3  #: a waiter looked when it asked for the GIL
    ALIKE = 4  #: samples of it and of like holds
    SAMPLE = 5  #: samples of this one


class Stretches(NamedTuple):
    """Holds cut up: `holds` (dtype `HOLD`, sorted by start) are stretches, `of` says of which hold, `stack` is what
    was done (-1: not known) and `source` a `Source`; one row each, and every hold has one at least.
    """

    holds: Array
    of: Ints
    stack: Numbers
    source: npt.NDArray[np.uint8]


@once
def stretches(process: Process) -> Stretches:
    """Cut the holds of one process."""
    holds, number = process.holds, np.arange(len(process.holds))
    seen = _see(process)
    stack, source = _whole(process)
    count = np.bincount(seen.hold, minlength=len(holds))
    many = count >= ENOUGH
    if process.stacks is None or not many.any():
        return Stretches(holds, number, stack, source)
    rows = np.where(many, count, 1)
    of = np.repeat(number, rows)
    cut = holds.take(of)
    first = np.cumsum(rows) - rows
    place = concatenated_ranges(first[many], (first + rows)[many])
    own = np.flatnonzero(many[seen.hold])
    hold, time = seen.hold[own], process.samples["time"][seen.sample[own]]
    inner = np.flatnonzero(hold[1:] == hold[:-1])
    half = time[inner] + (time[inner + 1] - time[inner]) // 2
    cut["end"][place[inner]] = half
    cut["start"][place[inner + 1]] = half
    stack, source = stack[of], source[of]
    stack[place] = process.stacks.sample[seen.sample[own]]
    source[place] = Source.SAMPLE
    return Stretches(cut, of, stack, source)


def cut_process(process: Process) -> Process:
    """The process with its stretches in the place of its holds."""
    # Not kept with itself: it would be let go of late.
    return process if stretches(process).holds is process.holds else _cut(process)


@once
def _cut(process: Process) -> Process:
    return replace(process, holds=stretches(process).holds)


def main_stacks(process: Process) -> Numbers:
    """The stack that stands for each hold as a whole, -1 if unknown: of its samples the most frequent."""
    return sourced_stacks(process)[0]


@once
def sourced_stacks(process: Process) -> tuple[Numbers, npt.NDArray[np.uint8]]:
    """The stack that stands for each hold as a whole, and how that is known: a `Source` each."""
    seen = _see(process)
    stack, source = _whole(process)
    if process.stacks is None or len(seen.sample) == 0:
        return stack, source
    key = seen.hold << 32 | process.stacks.sample[seen.sample].astype(np.int64)
    kind, count = np.unique(key, return_counts=True)
    order = np.argsort(count, kind="stable")  # the most frequent of each hold is assigned last
    stack[kind[order] >> 32] = (kind[order] & 0xFFFFFFFF).astype(np.int32)
    source[seen.hold] = Source.SAMPLE
    return stack, source


def _whole(process: Process) -> tuple[Numbers, npt.NDArray[np.uint8]]:
    """What each hold did if it did one thing only, and how that is known."""
    holds, known = process.holds, process.stacks
    source = np.full(len(holds), Source.UNKNOWN, np.uint8)
    if known is None:
        return np.full(len(holds), -1, np.int32), source
    chosen = np.where(known.hold_end >= 0, known.hold_end, known.hold_begin).astype(np.int32)
    source[chosen >= 0] = Source.ACQUIRE
    source[known.hold_end >= 0] = Source.RELEASE
    asked = requested_holds(process)
    looked = np.flatnonzero((asked >= 0) & (known.request >= 0))
    # Of several requests to one hold the first counts: it is assigned last.
    chosen[asked[looked[::-1]]] = known.request[looked[::-1]]
    source[asked[looked]] = Source.REQUEST
    dealt = _dealt(process)
    alike = np.flatnonzero(dealt >= 0)
    chosen[alike] = dealt[alike]
    source[alike] = Source.ALIKE
    return chosen, source


class _Seen(NamedTuple):
    """The samples that show a holder's stack, in the order of their holds and then of time; and these holds."""

    sample: Ints
    hold: Ints


@once
def _see(process: Process) -> _Seen:
    if process.stacks is None or len(process.samples) == 0:
        return _Seen(np.empty(0, np.int64), np.empty(0, np.int64))
    hold = hold_at(process, process.samples["gil"], process.samples["time"])
    sample = np.flatnonzero((hold >= 0) & (process.stacks.sample >= 0))
    sample = sample[np.argsort(hold[sample], kind="stable")]
    return _Seen(sample, hold[sample])


def add_to(dealing: Dealing, process: Process, rows: slice | Ints = _ALL) -> None:
    """Give the holds of a process, or some of them, to what deals samples out to them."""
    known, number = process.stacks, np.arange(len(process.holds))[rows]
    if known is None or not len(number):
        return
    seen = _see(process)
    hold = among(number, seen.hold)
    sample, hold = seen.sample[hold >= 0], hold[hold >= 0]
    holds, times = process.holds.take(number), gathered.times(process)[number]
    length = holds["end"] - holds["start"]
    lengths = Lengths(length // times, _until_contended(process, holds, length) // times, times)
    offset = process.samples["time"][sample] - holds["start"][hold]
    dealing.add(kinds(process, known, number), lengths, Seen(hold, offset, known.sample[sample]))


@once
def _dealt(process: Process) -> Numbers:
    """The stack of the sample that each hold shares in, of like ones; -1 for none."""
    if process.dealt is not None:
        return process.dealt
    seen = _see(process)
    if process.stacks is None or not len(seen.sample):
        return np.full(len(process.holds), -1, np.int32)
    # Where few holds were waited for, there are samples of few kinds.
    kind, stack = kinds(process, process.stacks), process.stacks.sample[seen.sample]
    sampled = distinct(kind[seen.hold])
    place = among(sampled, kind)
    del kind
    least, most = np.full(len(sampled), len(process.stacks.table), np.int32), np.full(len(sampled), -1, np.int32)
    np.minimum.at(least, place[seen.hold], stack)
    np.maximum.at(most, place[seen.hold], stack)
    # What shows the same stack in all samples has nothing to be dealt.
    result = np.append(most, np.int32(-1))[place]
    mixed = np.flatnonzero(np.append(least < most, False)[place])
    del place
    dealing = Dealing()
    for at in range(0, len(mixed), BLOCK):
        add_to(dealing, process, mixed[at : at + BLOCK])
    result[mixed] = dealing.deal()
    return result


def _until_contended(process: Process, holds: Array, length: Ints) -> Ints:
    """How long each of some `holds` lasted until somebody waited for it; its length if nobody did."""
    result: Ints = length.copy()
    for gil in range(process.gils):
        waits = process.waits[process.waits["gil"] == gil]
        mine = np.flatnonzero(holds["gil"] == gil)
        if len(waits) == 0 or len(mine) == 0:
            continue
        start, end = union(waits["start"], waits["end"])
        begin = holds["start"][mine]
        at = np.minimum(ended(end, begin), len(end) - 1)
        result[mine] = np.clip(np.where(end[at] > begin, start[at] - begin, length[mine]), 0, length[mine])
    return result


def kinds(process: Process, known: Stacks, rows: slice | Ints = _ALL) -> Ints:
    """A number for each hold, or some: equal for those of one role that began and ended in the same stacks.

    It is the same for all parts of a process.
    """
    of_thread = roles(process)
    number = {role: at for at, role in enumerate(sorted(set(of_thread)))}
    role = np.array([number[role] for role in of_thread], np.int64)[process.holds["thread"][rows]]
    stacks = len(known.table) + 1
    key: Ints = (role * stacks + known.hold_begin[rows] + 1) * stacks + known.hold_end[rows] + 1
    return key

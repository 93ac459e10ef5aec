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

from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.intervals import hold_at, requested_holds
from giltrace.analysis.measure.roles import roles
from giltrace.timeline import gathered
from giltrace.timeline.axis import Ints, concatenated_ranges, union
from giltrace.timeline.model import Array, Process, Stacks
from giltrace.timeline.once import once

Numbers = npt.NDArray[np.int32]

#: A hold with so many samples stands for itself.
ENOUGH = 4
#: So many samples of like holds that took about as long stand for these, fewer for all like ones.
ENOUGH_ALIKE = 16
# Longer than any hold is taken for here: 2.4 hours, in ns, so that a kind and a length fit into one integer.
_LONGEST = 1 << 43
# The golden ratio of 2**64, as a signed integer: its multiples, as such, are spread evenly.
_GOLDEN = np.int64(0x9E3779B97F4A7C15 - (1 << 64))


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
    stack, source = _whole(process, seen)
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


@once
def cut_process(process: Process) -> Process:
    """The process with its stretches in the place of its holds."""
    held = stretches(process).holds
    return process if held is process.holds else replace(process, holds=held)


def main_stacks(process: Process) -> Numbers:
    """The stack that stands for each hold as a whole, -1 if unknown: of its samples the most frequent."""
    return sourced_stacks(process)[0]


@once
def sourced_stacks(process: Process) -> tuple[Numbers, npt.NDArray[np.uint8]]:
    """The stack that stands for each hold as a whole, and how that is known: a `Source` each."""
    seen = _see(process)
    stack, source = _whole(process, seen)
    if process.stacks is None or len(seen.sample) == 0:
        return stack, source
    key = seen.hold << 32 | process.stacks.sample[seen.sample].astype(np.int64)
    kind, count = np.unique(key, return_counts=True)
    order = np.argsort(count, kind="stable")  # the most frequent of each hold is assigned last
    stack[kind[order] >> 32] = (kind[order] & 0xFFFFFFFF).astype(np.int32)
    source[seen.hold] = Source.SAMPLE
    return stack, source


def _whole(process: Process, seen: _Seen) -> tuple[Numbers, npt.NDArray[np.uint8]]:
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
    if len(seen.sample):
        _share(process, seen, known, chosen, source)
    return chosen, source


class _Seen(NamedTuple):
    """The samples that show a holder's stack, in the order of their holds and then of time; and these holds."""

    sample: Ints
    hold: Ints


def _see(process: Process) -> _Seen:
    if process.stacks is None or len(process.samples) == 0:
        return _Seen(np.empty(0, np.int64), np.empty(0, np.int64))
    hold = hold_at(process, process.samples["gil"], process.samples["time"])
    sample = np.flatnonzero((hold >= 0) & (process.stacks.sample >= 0))
    sample = sample[np.argsort(hold[sample], kind="stable")]
    return _Seen(sample, hold[sample])


def _share(process: Process, seen: _Seen, known: Stacks, chosen: Numbers, source: npt.NDArray[np.uint8]) -> None:
    """Let holds share in the samples of like ones: of those that took about as long, where these are enough."""
    length = process.holds["end"] - process.holds["start"]
    until_contended = _until_contended(process, length)
    lengths = _Lengths.of(process, length, until_contended)
    alike = _kinds(process, known)
    # Half an octave: where a hold gets on twice as fast, its lines come twice as early.
    octave = (2 * np.log2(np.maximum(lengths.whole, 1))).astype(np.int64)
    finer = np.unique(alike << 8 | octave, return_inverse=True)[1].ravel()
    for kind, least in ((alike, 1), (finer, ENOUGH_ALIKE)):
        holds, samples = _shared(process, seen, kind, least, lengths)
        chosen[holds] = known.sample[samples]
        source[holds] = Source.ALIKE


class _Lengths(NamedTuple):
    """How long each hold lasted (`whole`), and until somebody waited for it; on average where it stands for `times`."""

    whole: Ints
    until_contended: Ints
    times: Ints

    @classmethod
    def of(cls, process: Process, whole: Ints, until_contended: Ints) -> _Lengths:
        times = gathered.times(process)
        return cls(whole // times, until_contended // times, times)


def _shared(process: Process, seen: _Seen, kind: Ints, least: int, lengths: _Lengths) -> tuple[Ints, Ints]:
    """Deal the samples of each kind that has `least` of them out to its holds, by their weights: holds, their samples.

    `kind` and `lengths` have a row per hold.
    """
    offset = process.samples["time"][seen.sample] - process.holds["start"][seen.hold]
    order = np.lexsort((offset, kind[seen.hold]))
    own, offset = kind[seen.hold][order], offset[order]
    low = np.searchsorted(own, np.arange(int(kind.max()) + 2))
    number = np.diff(low)[kind]
    rest = np.flatnonzero(number >= least)
    if len(rest) == 0:
        return rest, rest
    some = np.flatnonzero(number)
    of_some = _Lengths(*(column[some] for column in lengths))
    spent = np.append(0, np.cumsum(_weights(kind[some], of_some, own, offset)))
    rest = rest[np.lexsort((_scattered(kind[rest]), kind[rest]))]
    mine = kind[rest]
    # The middle of each hold, on the way through the contended time of its kind; all of them take part a little.
    each = ((lengths.whole - lengths.until_contended + 1e-3) * lengths.times)[rest]
    passed = np.cumsum(each)
    head = np.flatnonzero(np.append(True, mine[1:] != mine[:-1]))
    size = np.diff(head, append=len(mine))
    whole = np.repeat(np.add.reduceat(each, head), size)
    way = (passed - each / 2 - np.repeat(passed[head] - each[head], size)) / whole
    first, last = low[mine], low[mine + 1]
    goal = spent[first] + way * (spent[last] - spent[first])
    at = np.clip(np.searchsorted(spent, goal, "right") - 1, first, last - 1)
    return rest, seen.sample[order[at]]


def _scattered(kind: Ints) -> Ints:
    """Numbers that spread the holds of each kind evenly: those of any stretch of time fall all over the range.

    In the order of time the early holds would get the samples of small offsets, whoever waited for them.
    """
    order = np.argsort(kind, kind="stable")
    head = np.flatnonzero(np.append(True, kind[order][1:] != kind[order][:-1]))
    rank = np.empty(len(kind), np.int64)
    rank[order] = np.arange(len(kind)) - np.repeat(head, np.diff(head, append=len(kind)))
    spread: Ints = rank * _GOLDEN
    return spread


def _until_contended(process: Process, length: Ints) -> Ints:
    """How long each hold lasted until somebody waited for it; its length if nobody did."""
    result: Ints = length.copy()
    for gil in range(process.gils):
        waits = process.waits[process.waits["gil"] == gil]
        mine = np.flatnonzero(process.holds["gil"] == gil)
        if len(waits) == 0 or len(mine) == 0:
            continue
        start, end = union(waits["start"], waits["end"])
        begin = process.holds["start"][mine]
        at = np.minimum(np.searchsorted(end, begin, "right"), len(end) - 1)
        result[mine] = np.clip(np.where(end[at] > begin, start[at] - begin, length[mine]), 0, length[mine])
    return result


def _weights(kind: Ints, lengths: _Lengths, own: Ints, offset: Ints) -> npt.NDArray[np.float64]:
    """The contended time of a kind's holds that lies nearest to each sample, by how far into its hold that was taken.

    `own` and `offset` are the samples' kinds and offsets, in this order.
    """
    half = np.append((offset[:-1] + offset[1:]) // 2, _LONGEST)
    last = np.append(own[1:] != own[:-1], True)
    high = np.where(last, _LONGEST, half)
    low = np.append(0, np.where(last, 0, half)[:-1])

    whole, until_contended, times = lengths
    before_low, before_high = (
        all_of_it - free
        for all_of_it, free in zip(
            _clipped_sums(kind, whole, times, own, (low, high)),
            _clipped_sums(kind, until_contended, times, own, (low, high)),
            strict=True,
        )
    )
    return np.maximum(before_high - before_low, 0) + 1e-3


def _clipped_sums(
    kind: Ints, values: Ints, times: Ints, own: Ints, limits: Iterable[Ints]
) -> Iterator[npt.NDArray[np.float64]]:
    """For each of the limits, and each kind in `own`, the sum of its `values`, each as many `times`, none counting for
    more than that limit.
    """
    key = kind * _LONGEST + np.minimum(values, _LONGEST - 1)
    order = np.argsort(key)
    key, times = key[order], times[order]
    passed = np.append(0.0, np.cumsum((key % _LONGEST).astype(np.float64) * times))
    number = np.append(0, np.cumsum(times))
    first = np.searchsorted(key, own * _LONGEST)
    last = np.searchsorted(key, (own + 1) * _LONGEST)
    for limit in limits:
        at = np.searchsorted(key, own * _LONGEST + np.minimum(limit, _LONGEST - 1), "right")
        yield passed[at] - passed[first] + (number[last] - number[at]) * limit.astype(np.float64)


def _kinds(process: Process, known: Stacks) -> Ints:
    """A number for each hold: equal for those of one role that began and ended in the same stacks."""
    of_thread = roles(process)
    number = {role: at for at, role in enumerate(sorted(set(of_thread)))}
    role = np.array([number[role] for role in of_thread], np.int64)[process.holds["thread"]]
    stacks = len(known.table) + 1
    key = (role * stacks + known.hold_begin + 1) * stacks + known.hold_end + 1
    return np.unique(key, return_inverse=True)[1].ravel()

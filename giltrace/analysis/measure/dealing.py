"""Deal what was seen of some holds out to all holds of their kind, a part of the holds at a time.

The samples of a kind stand for its holds by how much contended time lies nearest to each of them; holds take part by
their own. All sums are integers, so that it is the same whatever parts the holds are given in.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.recording.order import heads, stable_order
from giltrace.timeline.axis import Ints

Numbers = npt.NDArray[np.int32]
Rows = npt.NDArray[np.void]

#: So many samples of like holds that took about as long stand for these, fewer for all like ones.
ENOUGH_ALIKE = 16
#: So many holds are dealt to at a time.
BLOCK = 1 << 20
# Longer than any hold is taken for here: 2.4 hours, in ns, so that a kind and a length fit into one integer.
_LONGEST = 1 << 43
# The golden ratio of 2**64, as a signed integer: its multiples, as such, are spread evenly.
_GOLDEN = np.int64(0x9E3779B97F4A7C15 - (1 << 64))
# Lengths are counted in parts of a ns here: one such part is everybody's, so that all take part a little.
_PARTS = 1024

_HOLD = np.dtype([("kind", "<i4"), ("whole", "<i8"), ("until", "<i8"), ("times", "<i8")])
_TURN = np.dtype([("kind", "<i8"), ("place", "<i8"), ("each", "<i8"), ("hold", "<i8")])


class Lengths(NamedTuple):
    """How long each hold lasted (`whole`), and until somebody waited for it; on average where it stands for `times`."""

    whole: Ints
    until_contended: Ints
    times: Ints


class Seen(NamedTuple):
    """Samples of holds, in the order of these: the row of the `hold`, how far into it it was taken, and the stack."""

    hold: Ints
    offset: Ints
    stack: Numbers


class Dealing:
    """Takes holds with their samples part by part, and then deals. What it has to keep is in files in a `folder`.

    Without a folder it is in memory. To be closed.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._number: dict[int, int] = {}
        self._holds = _Pile(_HOLD, folder)
        self._seen: list[npt.NDArray[np.int64]] = []

    def add(self, kind: Ints, lengths: Lengths, seen: Seen) -> None:
        """Take the next holds: a number for what they have in common with like ones, and their lengths."""
        rows = np.empty(len(kind), _HOLD)
        alike, row = np.unique(kind, return_inverse=True)
        known = [self._number.setdefault(one, len(self._number)) for one in alike.tolist()]
        rows["kind"] = np.array(known, np.int32)[row.ravel()]
        rows["whole"], rows["until"], rows["times"] = lengths
        self._holds.add(rows)
        of = rows[seen.hold]
        self._seen.append(np.stack([_alike(of), _finer(of), seen.offset, seen.stack]))

    def deal(self) -> Numbers:
        """The stack of the sample that each hold was dealt, in the order in which they were given; -1 for none."""
        result = self._nothing()
        if self._seen:
            alike, finer, offset, stack = np.concatenate(self._seen, axis=1)
            for of_holds, of_seen, least in ((_alike, alike, 1), (_finer, finer, ENOUGH_ALIKE)):
                self._round(of_holds, of_seen, offset, stack.astype(np.int32), least, result)
        return result

    def _nothing(self) -> Numbers:
        """No stack for any hold yet."""
        if self._folder is None or not self._holds.size:
            return np.full(self._holds.size, -1, np.int32)
        with tempfile.TemporaryFile(dir=self._folder) as file:
            # The kernel may write it out and take the memory back.
            result: Numbers = np.memmap(file, np.int32, "w+", shape=self._holds.size)
        for at in range(0, len(result), BLOCK):
            result[at : at + BLOCK] = -1
        return result

    def close(self) -> None:
        """Let go of what was kept."""
        self._holds.close()

    def _round(
        self,
        kind_of: Callable[[Rows], Ints],
        seen: Ints,
        offset: Ints,
        stack: Numbers,
        least: int,
        result: Numbers,
    ) -> None:
        """Deal the samples of each kind that has `least` of them out to its holds."""
        kinds, count = np.unique(seen, return_counts=True)
        kinds = kinds[count >= least]
        if not len(kinds):
            return
        own = among(kinds, seen)
        order = np.flatnonzero(own >= 0)
        order = order[np.lexsort((offset[order], own[order]))]
        own, stack = own[order], stack[order]
        weighing = _Weighing(own, offset[order], len(kinds))
        for rows in self._holds.parts():
            kind = among(kinds, kind_of(rows))
            some = np.flatnonzero(kind >= 0)
            weighing.add(kind[some], rows.take(some))
        spent = np.append(0, np.cumsum(weighing.weights()))
        first = np.searchsorted(own, np.arange(len(kinds) + 1))
        passed = np.zeros(len(kinds), np.int64)
        for turns in self._blocks(kinds, kind_of, weighing.holds):
            kind, each = turns["kind"], turns["each"]
            reach = np.cumsum(each)
            head = heads(kind)
            last = np.append(head[1:], len(kind)) - 1
            before = np.repeat(reach[head] - each[head] - passed[kind[head]], np.diff(head, append=len(kind)))
            reach -= before
            passed[kind[head]] = reach[last]
            # The middle of each hold, on the way through the contended time of its kind.
            way = (reach - each / 2) / weighing.each[kind]
            low, high = first[kind], first[kind + 1]
            goal = spent[low] + (way * (spent[high] - spent[low])).astype(np.int64)
            at = np.clip(np.searchsorted(spent, goal, "right") - 1, low, high - 1)
            result[turns["hold"]] = stack[at]

    def _blocks(self, kinds: Ints, kind_of: Callable[[Rows], Ints], holds: Ints) -> Iterator[Rows]:
        """The holds of these kinds, sorted by kind and scattered within it, a block of them at a time.

        In the order of time the early holds would get the samples of small offsets, whoever waited for them. `holds`
        counts those of each kind.
        """
        before = np.cumsum(holds) - holds
        piles = [_Pile(_TURN, self._folder) for _ in range(int(holds.sum()) // BLOCK + 1)]
        rank, number = np.zeros(len(kinds), np.int64), 0
        for rows in self._holds.parts():
            kind = among(kinds, kind_of(rows))
            some = np.flatnonzero(kind >= 0)
            turns, kind = np.empty(len(some), _TURN), kind[some]
            order = stable_order(kind, len(kinds))
            head = heads(kind[order])
            size = np.diff(head, append=len(order))
            of_kind = kind[order[head]]
            nth = np.empty(len(order), np.int64)
            nth[order] = np.arange(len(order)) - np.repeat(head - rank[of_kind], size)
            rank[of_kind] += size
            turns["kind"], turns["place"] = kind, nth * _GOLDEN
            turns["each"] = _each(rows.take(some))
            turns["hold"] = some + number
            number += len(rows)
            way = (turns["place"].astype(np.float64) + 2.0**63) / 2.0**64
            block = np.minimum(((before[kind] + way * holds[kind]) // BLOCK).astype(np.int64), len(piles) - 1)
            if len(piles) == 1:
                piles[0].add(turns)
                continue
            for one in np.unique(block).tolist():
                piles[one].add(turns.take(np.flatnonzero(block == one)))
        for pile in piles:
            turns = np.concatenate([np.empty(0, _TURN), *pile.parts()])
            pile.close()
            if len(turns):
                # No two of a kind have the same place.
                order = np.argsort(turns["place"])
                yield turns.take(order[stable_order(turns["kind"][order], len(kinds))])


class _Weighing:
    """Sums up how much contended time lies nearest to each sample, by how far into its hold that was taken.

    `own` and `offset` are the samples' kinds and offsets, in this order. `holds` counts the holds of each kind, `each`
    is how much they take part.
    """

    def __init__(self, own: Ints, offset: Ints, kinds: int) -> None:
        half = np.append((offset[:-1] + offset[1:]) // 2, _LONGEST - 1)
        self._high = np.where(np.append(own[1:] != own[:-1], True), _LONGEST - 1, np.minimum(half, _LONGEST - 1))
        self._own, self._limit = own, own * _LONGEST + self._high
        self.holds, self.each = np.zeros((2, kinds), np.int64)
        # Of lengths and of times until somebody waited: how many end at most at each limit, and their sum.
        self._number, self._sum = np.zeros((2, 2, len(own)), np.int64)

    def add(self, kind: Ints, rows: Rows) -> None:
        """Take some holds, of these kinds."""
        times = rows["times"]
        self.holds += np.bincount(kind, minlength=len(self.holds))
        np.add.at(self.each, kind, _each(rows))
        for which, name in enumerate(("whole", "until")):
            value = np.minimum(rows[name], _LONGEST - 1)
            at = np.searchsorted(self._limit, kind * _LONGEST + value)
            np.add.at(self._number[which], at, times)
            np.add.at(self._sum[which], at, value * times)

    def weights(self) -> Ints:
        """Of each sample, in parts of a ns."""
        head = np.searchsorted(self._own, self._own)
        spent = []
        for number, total in zip(self._number, self._sum, strict=True):
            ended, reach = np.cumsum(number), np.cumsum(total)
            ended -= (ended - number)[head]
            reach -= (reach - total)[head]
            last = np.searchsorted(self._own, self._own, "right") - 1
            # No value counts for more than the limit.
            spent.append(reach + (ended[last] - ended) * self._high)
        passed = spent[0] - spent[1]
        before = np.where(head == np.arange(len(head)), 0, np.append(0, passed[:-1]))
        weights: Ints = np.maximum(passed - before, 0) * _PARTS + 1
        return weights


class _Pile:
    """Rows in the order in which they are added; in a file, if there is a folder for it."""

    def __init__(self, of: np.dtype[np.void], folder: Path | None) -> None:
        self._dtype, self.size = of, 0
        self._parts: list[Rows] = []
        self._sizes: list[int] = []
        self._file: IO[bytes] | None = None if folder is None else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115

    def add(self, rows: Rows) -> None:
        self.size += len(rows)
        if self._file is None:
            self._parts.append(rows)
        else:
            self._sizes.append(len(rows))
            self._file.write(np.ascontiguousarray(rows).data)

    def parts(self) -> Iterator[Rows]:
        if self._file is None:
            yield from self._parts
            return
        self._file.seek(0)
        for size in self._sizes:
            yield np.frombuffer(self._file.read(size * self._dtype.itemsize), self._dtype)

    def close(self) -> None:
        self._parts.clear()
        if self._file is not None:
            self._file.close()


def _alike(rows: Rows) -> Ints:
    return rows["kind"].astype(np.int64)


def _finer(rows: Rows) -> Ints:
    """Like holds that took about as long: half an octave, for where a hold gets on twice as fast, so do its lines."""
    octave: Ints = (2 * np.log2(np.maximum(rows["whole"], 1))).astype(np.int64)
    return _alike(rows) << 8 | octave


def _each(rows: Rows) -> Ints:
    each: Ints = ((rows["whole"] - rows["until"]) * _PARTS + 1) * rows["times"]
    return each


def among(kinds: Ints, of: Ints) -> Ints:
    """Where among the sorted `kinds`, which are some, each is; -1 where it is not."""
    at = np.minimum(np.searchsorted(kinds, of), len(kinds) - 1)
    return np.where(kinds[at] == of, at, -1)

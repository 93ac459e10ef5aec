"""Distribute the time of waits over the holds that overlap them, grouped by classes of waits and of holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.intervals import turns
from giltrace.recording.order import heads, stable_order
from giltrace.timeline.axis import Bools, Ints, concatenated_ranges
from giltrace.timeline.model import Process

#: So many overlaps of one wait with one hold are worked on at a time: some 30 MB.
CHUNK = 1 << 18
# One pass over all waits and holds for each class of holds costs so much less than one overlap as this.
_PASS_COST = 0.3


class Shares(NamedTuple):
    """One row per pair of a wait's class (`victim`) and a hold's class (`culprit`).

    `waits` counts the waits that lost time to such holds; `max_ns` is the most that one of them lost, `wait` that one.
    """

    victim: Ints
    culprit: Ints
    ns: Ints
    waits: Ints
    max_ns: Ints
    wait: Ints

    def rows(self, chosen: npt.NDArray[np.int64 | np.bool_]) -> Shares:
        """The rows that `chosen` names, by number or by a bool for each."""
        return Shares(*(column[chosen] for column in self))


class Overlaps(NamedTuple):
    """Waits against the turns of their GILs: wait i overlaps the turns ``low[i]:high[i]``.

    `before` and `beyond` are how much of the first and of the last of them lies outside the wait, in ns. `hold` and
    `length` are those of the turns.
    """

    hold: Ints
    length: Ints
    wait: Ints
    low: Ints
    high: Ints
    before: Ints
    beyond: Ints


def attribute(process: Process, victim: Ints, culprit: Ints, chosen: Bools | None = None) -> Shares:
    """Attribute waits of class `victim` (one per wait) to holds of class `culprit` (one per hold), largest `ns` first.

    Classes are small non-negative integers. `chosen` (bool, one per wait) leaves out the other waits.
    """
    whole = joined(attribute_in_parts(process, victim, culprit, chosen))
    return largest(whole, len(whole.ns))


def attribute_in_parts(process: Process, victim: Ints, culprit: Ints, chosen: Bools | None = None) -> Iterator[Shares]:
    """Attribute as `attribute` does, a part at a time, for there can be as many pairs as overlaps.

    No two parts have a pair in common. Within one they are in order of culprit and then victim; of one culprit, later
    parts have later victims.
    """
    found = overlaps(process, chosen)
    if len(found.wait) == 0:
        return
    order = stable_order(victim[found.wait], int(victim.max()) + 1)
    found = Overlaps(found.hold, found.length, *(column[order] for column in found[2:]))
    own, kind = victim[found.wait], culprit[found.hold]
    present = np.flatnonzero(np.bincount(kind))
    if len(present) * (len(own) + len(kind)) * _PASS_COST <= int((found.high - found.low).sum()):
        yield from _by_class(found, own, kind, present)
    else:
        yield from _completed(_by_pair(found, own, kind))


def joined(parts: Iterable[Shares]) -> Shares:
    """Put parts one after the other."""
    columns = list(zip(*parts, strict=True))
    return Shares(*(np.concatenate(column) for column in columns or [(np.empty(0, np.int64),)] * len(Shares._fields)))


def largest(shares: Shares, count: int) -> Shares:
    """The `count` rows with the largest `ns`, largest first; of equal ones those of the smaller classes first."""
    if len(shares.ns) > count:
        shares = shares.rows(shares.ns >= np.partition(shares.ns, -count)[-count])
    return shares.rows(np.lexsort((shares.culprit, shares.victim, -shares.ns))[:count])


def merged(rows: Shares) -> Shares:
    """Add up the rows of each pair, which must be next to each other."""
    if len(rows.ns) == 0:
        return rows
    head = heads(rows.culprit, rows.victim)
    most = np.maximum.reduceat(rows.max_ns, head)
    longest = np.flatnonzero(rows.max_ns == np.repeat(most, np.diff(head, append=len(rows.ns))))
    return Shares(
        rows.victim[head],
        rows.culprit[head],
        np.add.reduceat(rows.ns, head),
        np.add.reduceat(rows.waits, head),
        most,
        rows.wait[longest[np.searchsorted(longest, head)]],
    )


def overlaps(process: Process, chosen: Bools | None) -> Overlaps:
    """Find the turns that each wait overlaps; waits without any are left out."""
    parts = []
    at = 0
    for gil in range(process.gils):
        mine = turns(process, gil)
        use = process.waits["gil"] == gil
        wait = np.flatnonzero(use if chosen is None else use & chosen)
        start, end = process.waits["start"][wait], process.waits["end"][wait]
        low = np.searchsorted(mine.end, start, "right")
        high = np.searchsorted(mine.start, end, "left")
        some = (high > low) & (end > start)
        wait, start, end, low, high = (column[some] for column in (wait, start, end, low, high))
        before = np.maximum(start - mine.start[low], 0)
        beyond = np.maximum(mine.end[high - 1] - end, 0)
        parts.append(Overlaps(mine.hold, mine.end - mine.start, wait, low + at, high + at, before, beyond))
        at += len(mine.hold)
    columns = list(zip(*parts, strict=True)) or [(np.empty(0, np.int64),)] * len(Overlaps._fields)
    # Nearly always there is one GIL: no need to copy.
    return Overlaps(*(column[0] if len(column) == 1 else np.concatenate(column) for column in columns))


def _by_class(found: Overlaps, own: Ints, kind: Ints, present: Ints) -> Iterator[Shares]:
    """One pass per class of holds, by prefix sums: for few classes."""
    first_kind, last_kind = kind[found.low], kind[found.high - 1]
    for one in present.tolist():
        spent = np.append(0, np.cumsum(np.where(kind == one, found.length, 0)))
        lost = spent[found.high] - spent[found.low]
        lost -= np.where(first_kind == one, found.before, 0)
        lost -= np.where(last_kind == one, found.beyond, 0)
        some = np.flatnonzero(lost)
        yield _added_up(own[some], np.full(len(some), one, np.int64), lost[some], found.wait[some])


def _by_pair(found: Overlaps, own: Ints, kind: Ints) -> Iterator[Shares]:
    """Every overlap of one wait with one hold, in chunks: for many classes."""
    classes = int(kind.max()) + 1
    for row, turn, lost in each_overlap(found):
        # One sort does for both groupings: the waits are in order, and they are in the order of their classes.
        culprit = kind[turn]
        order = stable_order(culprit, classes)
        culprit, lost, row = culprit[order], lost[order], row[order]
        head = heads(culprit, row)
        row = row[head]
        yield _added_up(own[row], culprit[head], np.add.reduceat(lost, head), found.wait[row])


def each_overlap(found: Overlaps) -> Iterator[tuple[Ints, Ints, Ints]]:
    """Every overlap of one wait with one turn: the row of the wait, the turn, and how long it is in ns.

    They come by wait and then by time, in chunks of whole waits.
    """
    reach = np.cumsum(found.high - found.low)
    at = 0
    while at < len(reach):
        done = int(reach[at - 1]) if at else 0
        until = max(int(np.searchsorted(reach, done + CHUNK, "right")), at + 1)
        last = reach[at:until] - done - 1
        low, high = found.low[at:until], found.high[at:until]
        turn = concatenated_ranges(low, high)
        lost = found.length[turn]
        lost[last - (high - low) + 1] -= found.before[at:until]
        lost[last] -= found.beyond[at:until]
        yield np.repeat(np.arange(at, until), high - low), turn, lost
        at = until


def _added_up(victim: Ints, culprit: Ints, lost: Ints, wait: Ints) -> Shares:
    """Add up what single waits lost to single classes, which are in order of culprit and victim."""
    return merged(Shares(victim, culprit, lost, np.ones(len(lost), np.int64), lost, wait))


def _completed(parts: Iterable[Shares]) -> Iterator[Shares]:
    """Add the rows of a victim that goes on into the next part to those there; parts are in order of victims."""
    open_rows: Shares | None = None
    for part in parts:
        last = part.victim.max()
        if open_rows is not None:
            again = part.victim == open_rows.victim[0]
            both = joined([open_rows, part.rows(again)])
            both = merged(both.rows(np.argsort(both.culprit, kind="stable")))
            part = part.rows(~again)
            if len(part.ns) == 0:
                open_rows = both
                continue
            yield both
        yield part.rows(part.victim < last)
        open_rows = part.rows(part.victim == last)
    if open_rows is not None:
        yield open_rows


class LongestOverlap:
    """Finds single holds that stand for what a wait lost to a class of holds (`culprit`, one per hold)."""

    def __init__(self, process: Process, culprit: Ints) -> None:
        self._waits = process.waits
        self._culprit = culprit
        self._turns = [turns(process, gil) for gil in range(process.gils)]

    def find(self, wait: Ints, kind: Ints) -> Ints:
        """Of the holds of class ``kind[i]`` that overlap ``wait[i]``, the one that overlaps it longest; else -1."""
        result = np.full(len(wait), -1, np.int64)
        order = np.argsort(wait, kind="stable")
        for asked in np.split(order, heads(wait[order])[1:]):
            if len(asked):
                result[asked] = self._find(int(wait[asked[0]]), kind[asked])
        return result

    def _find(self, wait: int, kind: Ints) -> Ints:
        row = self._waits[wait]
        mine = self._turns[int(row["gil"])]
        low = int(np.searchsorted(mine.end, row["start"], "right"))
        high = int(np.searchsorted(mine.start, row["end"], "left"))
        hold = mine.hold[low:high]
        lost = np.minimum(mine.end[low:high], row["end"]) - np.maximum(mine.start[low:high], row["start"])
        # The longest of each class first, and of equal ones the earliest.
        order = np.lexsort((-lost, self._culprit[hold]))
        hold = hold[order]
        held = self._culprit[hold]
        at = np.searchsorted(held, kind)
        found = np.append(hold, -1)[at]
        return np.where(np.append(held, -1)[at] == kind, found, -1)

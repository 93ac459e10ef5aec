"""Distribute the time of waits over the holds that overlap them, grouped by classes of waits and of holds."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.intervals import Turns, turns
from giltrace.timeline.axis import Ints, concatenated_ranges
from giltrace.timeline.model import Process

#: So many overlaps of one wait with one hold are worked on at a time: some 100 MB.
CHUNK = 1 << 20
# One pass over all waits and holds for each class of holds costs so much less than one overlap as this.
_PASS_COST = 0.3


class Shares(NamedTuple):
    """One row per pair of a wait's class (`victim`) and a hold's class (`culprit`), largest `ns` first.

    `waits` counts the waits that lost time to such holds; `max_ns` is the most that one of them lost, `wait` that one.
    """

    victim: Ints
    culprit: Ints
    ns: Ints
    waits: Ints
    max_ns: Ints
    wait: Ints


class Overlaps(NamedTuple):
    """Some waits of one GIL against its turns: wait i overlaps the turns ``low[i]:high[i]``."""

    turns: Turns
    wait: Ints
    start: Ints
    end: Ints
    low: Ints
    high: Ints


def overlaps(process: Process, gil: int, wait: Ints) -> Overlaps:
    """Find the turns that each wait (numbers of waits for this GIL) overlaps; waits without any are left out."""
    mine = turns(process, gil)
    start, end = process.waits["start"][wait], process.waits["end"][wait]
    low = np.searchsorted(mine.end, start, "right")
    high = np.searchsorted(mine.start, end, "left")
    some = (high > low) & (end > start)
    return Overlaps(mine, wait[some], start[some], end[some], low[some], high[some])


def attribute(process: Process, victim: Ints, culprit: Ints, chosen: npt.NDArray[np.bool_] | None = None) -> Shares:
    """Attribute waits of class `victim` (one per wait) to holds of class `culprit` (one per hold).

    Classes are small non-negative integers. `chosen` (bool, one per wait) leaves out the other waits.
    """
    classes = int(culprit.max(initial=0)) + 1
    parts = []
    for gil in range(process.gils):
        use = process.waits["gil"] == gil
        mine = overlaps(process, gil, np.flatnonzero(use if chosen is None else use & chosen))
        if len(mine.wait) == 0:
            continue
        kind = culprit[mine.turns.hold]
        present = np.unique(kind)
        pairs = int((mine.high - mine.low).sum())
        passes = len(present) * (len(mine.wait) + len(kind))
        if passes * _PASS_COST <= pairs:
            parts += _by_class(mine, victim, kind, present)
        else:
            parts += _by_pair(mine, victim, kind, classes)
    return _merged(parts, classes)


def _by_class(mine: Overlaps, victim: Ints, kind: Ints, present: Ints) -> list[Shares]:
    """One pass per class of holds, by prefix sums: for few classes."""
    own = victim[mine.wait]
    first, last = mine.low, mine.high - 1
    before = np.maximum(mine.start - mine.turns.start[first], 0)
    beyond = np.maximum(mine.turns.end[last] - mine.end, 0)
    first_kind, last_kind = kind[first], kind[last]
    length = mine.turns.end - mine.turns.start
    parts = []
    for one in present.tolist():
        spent = np.append(0, np.cumsum(np.where(kind == one, length, 0)))
        lost = spent[mine.high] - spent[mine.low]
        lost -= np.where(first_kind == one, before, 0)
        lost -= np.where(last_kind == one, beyond, 0)
        some = np.flatnonzero(lost)
        parts.append(_grouped(own[some], np.full(len(some), one, np.int64), lost[some], mine.wait[some], one + 1))
    return parts


def _by_pair(mine: Overlaps, victim: Ints, kind: Ints, classes: int) -> list[Shares]:
    """Every overlap of one wait with one hold, in chunks: for many classes."""
    reach = np.cumsum(mine.high - mine.low)
    parts, at = [], 0
    while at < len(reach):
        done = int(reach[at - 1]) if at else 0
        until = max(int(np.searchsorted(reach, done + CHUNK, "right")), at + 1)
        part = slice(at, until)
        turn = concatenated_ranges(mine.low[part], mine.high[part])
        wait = np.repeat(np.arange(until - at, dtype=np.int64), mine.high[part] - mine.low[part])
        lost = np.minimum(mine.turns.end[turn], mine.end[part][wait])
        lost -= np.maximum(mine.turns.start[turn], mine.start[part][wait])
        key = wait * classes + kind[turn]
        order = np.argsort(key, kind="stable")
        key = key[order]
        head = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
        lost, key = np.add.reduceat(lost[order], head), key[head]
        number = mine.wait[part][key // classes]
        parts.append(_grouped(victim[number], key % classes, lost, number, classes))
        at = until
    return parts


def _grouped(victim: Ints, culprit: Ints, lost: Ints, wait: Ints, classes: int) -> Shares:
    """Group what single waits lost to single classes."""
    key = victim * classes + culprit
    keys, group = _dense(key)
    most = np.zeros(len(keys), np.int64)
    np.maximum.at(most, group, lost)
    longest = np.zeros(len(keys), np.int64)
    at = np.flatnonzero(lost == most[group])[::-1]
    longest[group[at]] = wait[at]
    # bincount adds in float64: exact up to 2**53 ns, which is 104 days.
    ns = np.bincount(group, weights=lost, minlength=len(keys)).astype(np.int64)
    return Shares(keys // classes, keys % classes, ns, np.bincount(group, minlength=len(keys)), most, longest)


def _dense(key: Ints) -> tuple[Ints, Ints]:
    """The distinct keys, and for each key its number among them."""
    top = int(key.max(initial=-1)) + 1
    if top > max(1 << 16, 4 * len(key)):
        keys, group = np.unique(key, return_inverse=True)
        return keys, group.astype(np.int64)
    used = np.zeros(top, np.bool_)
    used[key] = True
    return np.flatnonzero(used), (np.cumsum(used) - 1)[key]


def _merged(parts: list[Shares], classes: int) -> Shares:
    """Add up parts of the same pair."""
    if not parts:
        return Shares(*(np.empty(0, np.int64) for _ in Shares._fields))
    whole = Shares(*(np.concatenate(column).astype(np.int64) for column in zip(*parts, strict=True)))
    if len(whole.ns) == 0:
        return whole
    key = whole.victim * classes + whole.culprit
    order = np.lexsort((-whole.max_ns, key))
    whole = Shares(*(column[order] for column in whole))
    key = key[order]
    head = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    ns, waits = np.add.reduceat(whole.ns, head), np.add.reduceat(whole.waits, head)
    rank = np.lexsort((key[head], -ns))
    head = head[rank]
    return Shares(whole.victim[head], whole.culprit[head], ns[rank], waits[rank], whole.max_ns[head], whole.wait[head])


class LongestOverlap:
    """Finds single holds that stand for what a wait lost to a class of holds."""

    def __init__(self, process: Process, culprit: Ints) -> None:
        self._waits = process.waits
        self._culprit = culprit
        self._turns = [turns(process, gil) for gil in range(process.gils)]

    def find(self, wait: int, kind: int) -> int:
        """Of the holds of class `kind` that overlap a wait, the one that overlaps it longest; -1 if none does."""
        row = self._waits[wait]
        mine = self._turns[int(row["gil"])]
        low = int(np.searchsorted(mine.end, row["start"], "right"))
        high = int(np.searchsorted(mine.start, row["end"], "left"))
        if high <= low:
            return -1
        lost = np.minimum(mine.end[low:high], row["end"]) - np.maximum(mine.start[low:high], row["start"])
        hold = mine.hold[low:high]
        lost = np.where(self._culprit[hold] == kind, lost, -1)
        best = int(lost.argmax())
        return int(hold[best]) if lost[best] >= 0 else -1

"""Who made whom wait in locks: the line that is blocked, the line that wakes it, and what the waker did meanwhile.

A lock that is given back has an owner: whoever wakes the next thread had it until then, since it was given back the
time before, which is on record as long as somebody sleeps in it. So a block is cut where the lock changed hands, and
each piece is told of the owner of that time. What is waited for as such, an event, an item of a queue, the end of a
thread, has none: all of the time is told of the thread that made it come.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.lock_results import LockBlame, Meanwhile
from giltrace.analysis.measure.activity import Activity, Doing, by_line, during
from giltrace.analysis.measure.block_causes import AWAITED, BlockCause
from giltrace.analysis.measure.sites import Sites
from giltrace.timeline.axis import Ints, LifeAxis
from giltrace.timeline.model import Process

#: Of so many pairs of lines it is told what the waker did meanwhile: each costs a pass over the waker's time.
TOLD = 12
#: So many of a pair's locks are named.
MOST_LOCKS = 100
#: What is less than this share of a pair's time is left out.
LEAST_SHARE = 0.02
#: A chain of threads that are blocked by each other is followed so far.
_LONGEST_CHAIN = 6


class Pieces(NamedTuple):
    """Parts of blocks, one row each: who had (or was to bring) what `block` waited for, from `start` to `end`."""

    block: Ints
    owner: Ints
    start: Ints
    end: Ints


def lock_blame(process: Process, sites: Sites, found: Activity, causes: Ints, pieces: Pieces) -> tuple[LockBlame, ...]:
    """Pair the lines of the chosen threads' blocks with those of their wakers, the costliest first, and joins last.

    `causes` are those of the blocks, and `pieces` what `owners` says of them.
    """
    blocks = process.blocks
    asked = np.flatnonzero(process.of_chosen(blocks))
    if not len(asked):
        return ()
    victims = Sites.own_lines(sites.classify(blocks["thread"], _stack(process, "block")))
    wakers = Sites.own_lines(
        sites.classify(np.maximum(blocks["waker"], 0), np.where(blocks["waker"] >= 0, _stack(process, "wake"), -1))
    )
    key = (victims.of_row * len(BlockCause) + causes) * (len(wakers.sites) + 1)
    key += np.where(blocks["waker"] >= 0, wakers.of_row, len(wakers.sites))
    kinds, number = np.unique(key[asked], return_inverse=True)
    number = number.ravel()
    length = (blocks["end"] - blocks["start"])[asked]
    total = np.bincount(number, weights=length).astype(np.int64)
    longest = np.zeros(len(kinds), np.int64)
    np.maximum.at(longest, number, length)
    times = np.bincount(number)
    rows = []
    # Who joins others waits for what they wait for: the cause before the symptom.
    joins = np.isin(kinds // (len(wakers.sites) + 1) % len(BlockCause), (BlockCause.JOIN, BlockCause.START))
    for rank, at in enumerate(np.lexsort((-total, joins)).tolist()):
        mine = asked[number == at] if rank < TOLD else asked[:0]
        rest, waker = divmod(int(kinds[at]), len(wakers.sites) + 1)
        victim, cause = divmod(rest, len(BlockCause))
        rows.append(
            LockBlame(
                victim=victims.sites[victim],
                waker=wakers.sites[waker] if waker < len(wakers.sites) else None,
                cause=BlockCause(cause).label,
                locks=tuple((np.unique(blocks["lock"][mine])[:MOST_LOCKS] + 1).tolist()),
                objects=_objects(process, blocks["lock"][mine]),
                ns=int(total[at]),
                blocks=int(times[at]),
                max_ns=int(longest[at]),
                meanwhile=_meanwhile(process, sites, found, causes, _of_blocks(pieces, mine)) if len(mine) else (),
            )
        )
    return tuple(rows)


def _objects(process: Process, locks: npt.NDArray[np.int32]) -> tuple[str, ...]:
    """The types of the objects that these locks belong to, those first that are slept in most often."""
    if not process.lock_types:
        return ()
    used, times = np.unique(locks, return_counts=True)
    count = Counter[str]()
    for lock, number in zip(used.tolist(), times.tolist(), strict=True):
        count[process.lock_types[lock]] += number
    return tuple(name for name, _ in count.most_common() if name)


def _stack(process: Process, which: str) -> Ints:
    known = process.stacks
    stack = getattr(known, which) if known is not None else np.full(len(process.blocks), -1)
    return np.asarray(stack, np.int64)


def owners(process: Process, causes: Ints) -> Pieces:
    """Cut the blocks where their locks changed hands."""
    blocks = process.blocks
    given = ~np.isin(causes, AWAITED)
    woken = np.flatnonzero(given & (blocks["waker"] >= 0))
    # When each lock changed hands, lock by lock.
    hands = woken[np.argsort(_place(process, woken, "woken"), kind="stable")]
    place = _place(process, hands, "woken")
    mine = np.flatnonzero(given)
    low, high = (np.searchsorted(place, _place(process, mine, edge), "right") for edge in ("start", "end"))
    count = high - low
    of = np.repeat(np.arange(len(mine)), count)
    at = np.arange(len(of)) - np.repeat(np.cumsum(count) - count, count) + low[of]
    end = blocks["woken"][hands[at]]
    first = np.append(True, of[1:] != of[:-1]) if len(of) else np.zeros(0, np.bool_)
    start = np.where(first, blocks["start"][mine[of]], np.append(0, end[:-1]) if len(end) else end)
    awaited = np.flatnonzero(~given & (blocks["waker"] >= 0))
    rest = blocks[awaited]
    return Pieces(
        np.concatenate([mine[of], awaited]),
        np.concatenate([blocks["waker"][hands[at]], rest["waker"]]).astype(np.int64),
        np.concatenate([start, rest["start"]]),
        np.concatenate([end, rest["woken"]]),
    )


def _place(process: Process, block: Ints, edge: str) -> Ints:
    """An instant of these blocks as a place on an axis on which the times of all locks lie end to end."""
    blocks = process.blocks
    if not len(block):
        return np.empty(0, np.int64)
    origin, last = int(blocks["start"].min()), int(blocks["end"].max())
    place: Ints = blocks["lock"][block].astype(np.int64) * (last - origin + 1) + (blocks[edge][block] - origin)
    return place


def _of_blocks(pieces: Pieces, blocks: Ints) -> Pieces:
    chosen = np.isin(pieces.block, blocks)
    return Pieces(*(column[chosen] for column in pieces))


def _meanwhile(process: Process, sites: Sites, found: Activity, causes: Ints, pieces: Pieces) -> tuple[Meanwhile, ...]:
    """What the owners did in these times."""
    if not len(pieces.block):
        return ()
    axis = LifeAxis.of_threads(process.threads)
    row, spent = during(found, axis, pieces.owner, pieces.start, pieces.end)
    least = LEAST_SHARE * int((pieces.end - pieces.start).sum())
    kinds = by_line(sites, found, causes, row, spent)
    return tuple(Meanwhile(**kind._asdict(), ns=ns) for kind, ns in kinds if ns >= least)


def chain(rows: tuple[LockBlame, ...], first: LockBlame) -> tuple[LockBlame, ...]:
    """Who was blocked by whom, from `first` on: as long as a waker was blocked itself for most of the time."""
    found = [first]
    while len(found) < _LONGEST_CHAIN and found[-1].meanwhile and found[-1].meanwhile[0].doing == Doing.LOCK.label:
        line = found[-1].meanwhile[0].site
        following = next((row for row in rows if row.victim == line and row not in found), None)
        if following is None:
            break
        found.append(following)
    return tuple(found)

"""Threads that wait for each other in a circle: each sleeps in a lock that the next one has taken."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.analysis.durations import duration
from giltrace.analysis.finding_results import Verdict
from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.measure.lock_blame import Pieces
from giltrace.text import plural
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import BlockEnd, LockKind, Process

#: A circle that lasts for less comes and goes with timeouts that are meant to end it.
LEAST_NS = 50_000_000
#: So many of the longest blocks are looked at: in a circle they are long.
MOST_BLOCKS = 2_000
#: Of threads of which it is not known who waits for whom, so many are told.
MOST_TOLD = 4


class Circle(NamedTuple):
    """Blocks, each in a lock that the thread of the next one had, from `start` to `end`; the last in one of the first.

    It was `open` if it had not ended at the end of the record.
    """

    blocks: tuple[int, ...]
    start: int
    end: int
    open: bool


def find_circle(process: Process, turns: Pieces) -> Circle | None:
    """The circle that lasted longest, by what threads had taken as they fell asleep, and by whose `turns` it was.

    The latter only tells of locks that were given back in the end.
    """
    blocks = process.blocks
    length = blocks["end"] - blocks["start"]
    longest = np.flatnonzero((length >= LEAST_NS) | (blocks["start"] <= process.start))
    longest = longest[np.argsort(-length[longest], kind="stable")[:MOST_BLOCKS]]
    on = _edges(process, turns, longest)
    found = [circle for block in longest.tolist() if (circle := _around(process, on, (block,))) is not None]
    return max(found, key=lambda one: one.end - one.start, default=None)


def _edges(process: Process, turns: Pieces, longest: Ints) -> dict[int, list[int]]:
    """For each of the `longest` blocks those of the threads that had its lock."""
    blocks, held = process.blocks, process.held
    owners: dict[int, list[int]] = {}
    for block, lock in held[np.isin(held["block"], longest)].tolist():
        owners.setdefault(lock, []).append(block)
    on = {block: list(owners.get(int(blocks["lock"][block]), [])) for block in longest.tolist()}
    of_thread: dict[int, list[int]] = {}
    for block in longest.tolist():
        of_thread.setdefault(int(blocks["thread"][block]), []).append(block)
    long_turns = np.flatnonzero(np.isin(turns.block, longest) & (turns.end - turns.start >= LEAST_NS))
    for row in long_turns.tolist():
        for block in of_thread.get(int(turns.owner[row]), []):
            both = min(blocks["end"][block], turns.end[row]) - max(blocks["start"][block], turns.start[row])
            if both >= LEAST_NS:
                on[int(turns.block[row])].append(block)
    return on


def _around(process: Process, on: dict[int, list[int]], way: tuple[int, ...]) -> Circle | None:
    """Follow from the last block of the `way` who has its lock, until that leads back to the first."""
    rows = process.blocks[list(way)]
    start, end = int(rows["start"].max()), int(rows["end"].min())
    # What began before the record does lasts for longer than that shows.
    if (end - start < LEAST_NS and start > process.start) or end <= start:
        return None
    for owner in on[way[-1]]:
        if owner == way[0] and len(way) > 1:
            return Circle(way, start, end, bool((rows["ended"] == BlockEnd.OPEN).all()))
        threads: Ints = process.blocks["thread"][[*way, owner]]
        # Of each circle the one that begins with its first block.
        if owner > way[0] and len(set(threads.tolist())) == len(way) + 1:
            found = _around(process, on, (*way, owner))
            if found is not None:
                return found
    return None


class Standstill(NamedTuple):
    """Threads that sleep in locks until one gives up, if one does: in `blocks`, all of them from `start` to `end`.

    It is `certain` that each waits for the next one, and the last for the first; else they may. `open` as in `Circle`.
    """

    blocks: tuple[int, ...]
    start: int
    end: int
    open: bool
    certain: bool


#: What to do about it, by whether it is certain.
ADVICE = {
    True: "Take these locks in the same order everywhere, or one lock for what both guard.",
    False: "See which locks are taken above those lines, and take them in the same order everywhere.",
}


def find_standstill(f: Figures, least_ns: int = LEAST_NS) -> Standstill | None:
    """Threads that wait for each other in a circle; or that may: who has the locks that they sleep in is not known.

    The latter for `least_ns` at least.
    """
    circle = find_circle(f.process, f.turns)
    if circle is not None:
        return Standstill(*circle, certain=True)
    process, blocks = f.process, f.process.blocks
    mine = (f.block_causes == BlockCause.LOCK) & (blocks["ended"] == BlockEnd.OPEN) & (blocks["timed"] == 0)
    # Without its line a thread may as well wait for work.
    mine &= process.stacks.block >= 0 if process.stacks is not None else False
    rows = np.flatnonzero(mine & (blocks["end"] - blocks["start"] >= least_ns))
    if len(np.unique(blocks["lock"][rows])) < 2 and not _nobody_is_left(process, rows):
        return None
    # Of a semaphore it would be known that one of them has it, had it been taken since the recording began.
    parked = process.locks["kind"][blocks["lock"][rows]] == LockKind.PARKED
    before = (blocks["start"][rows] <= process.start) | process.left
    owned = np.isin(blocks["lock"][rows], process.held["lock"])
    if len(process.held) and not ((parked | before) & ~owned).any():
        return None
    start, end = int(blocks["start"][rows].max()), int(blocks["end"][rows].min())
    return Standstill(tuple(rows.tolist()), start, end, open=True, certain=False)


def _nobody_is_left(process: Process, rows: Ints) -> bool:
    """Whether all threads that live, as far as is known, sleep in these blocks: who is to give the lock back?"""
    stuck = set(process.blocks["thread"][rows].tolist())
    return bool(stuck) and all(at in stuck for at, one in enumerate(process.threads) if one.end >= process.end)


def deadlock(f: Figures) -> Verdict | None:
    """Did threads wait for each other in a circle, or may they have?"""
    found = find_standstill(f)
    if found is None:
        return None
    origin = f.process.start
    since = f"from {duration(found.start - origin)} on" if found.start > origin else "from before the record begins on"
    evidence: dict[str, float] = {
        "threads": len(found.blocks),
        "since_ns": found.start - origin,
        "lost_ns": found.end - found.start,
    }
    if not found.certain:
        told = ", ".join(f"{name!r} at {where}" for name, where in who_and_where(f, found)[:MOST_TOLD])
        alone = len(found.blocks) == 1
        return Verdict(
            "deadlock",
            f"Blocked to the end, {since}: {told}{_more(found)}, {'' if alone else 'each '}in a lock that nobody gave "
            "back.",
            "See whether it has taken that lock itself, above that line: an RLock may be taken again."
            if alone
            else f"They may wait for each other: who has these locks is not known. {ADVICE[False]}",
            evidence,
        )
    known = who_and_where(f, found)
    links = [
        f"{name!r} at {at} in a lock that {following!r} had"
        for (name, at), (following, _) in zip(known, [*known[1:], known[0]], strict=True)
    ]
    until = "to the end" if found.open else f"for {duration(found.end - found.start)}, until one gave up"
    return Verdict(
        "deadlock",
        f"Deadlock: {since}, {until}, threads waited for each other: {', '.join(links)}.",
        ADVICE[True],
        evidence,
    )


def under_way(f: Figures, found: Standstill, ns: int | None) -> str:
    """One sentence on a standstill that lasts, for `ns` so far; None for longer than anybody has looked."""
    known = who_and_where(f, found)
    for_ = f"for {duration(ns)}" if ns is not None else "since before giltrace came"
    if not found.certain:
        told = ", ".join(f"{name!r} at {where}" for name, where in known[:MOST_TOLD])
        return f"May be a deadlock, {for_}: {told}{_more(found)}, each in a lock that nobody gives back."
    links = [
        f"{name!r} at {at} wants a lock that {following!r} has"
        for (name, at), (following, _) in zip(known, [*known[1:], known[0]], strict=True)
    ]
    return f"Deadlock {for_}: {', '.join(links)}."


def who_and_where(f: Figures, found: Standstill) -> list[tuple[str, str]]:
    """What each of the threads is called, and the line at which it sleeps."""
    threads = f.process.blocks["thread"][list(found.blocks)].tolist()
    names = [f.name(thread) for thread in threads]
    # Where Python's names are not known, several may be called like the program.
    names = [
        f"{name}, tid {f.process.threads[thread].tid}" if names.count(name) > 1 else name
        for name, thread in zip(names, threads, strict=True)
    ]
    return [(name, _stood(f, block)) for name, block in zip(names, found.blocks, strict=True)]


def _more(found: Standstill) -> str:
    left = len(found.blocks) - MOST_TOLD
    return f" and {plural(left, 'more thread')}" if left > 0 else ""


def _stood(f: Figures, block: int) -> str:
    known = f.process.stacks
    stack = known.block[[block]] if known is not None else np.array([-1])
    site = f.sites.classify(f.process.blocks["thread"][[block]], stack).sites[0]
    return site.where if site.function else "an unknown line"

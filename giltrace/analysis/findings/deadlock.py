"""Threads that wait for each other in a circle: each sleeps in a lock that the next one has taken."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from giltrace.analysis.durations import duration
from giltrace.analysis.findings.figures import Figures
from giltrace.analysis.measure.block_causes import BlockCause
from giltrace.analysis.measure.lock_blame import Pieces
from giltrace.analysis.results import Verdict
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import BlockEnd, Process

#: A circle that lasts for less comes and goes with timeouts that are meant to end it.
LEAST_NS = 50_000_000
#: So many of the longest blocks are looked at: in a circle they are long.
MOST_BLOCKS = 2_000


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
    longest = np.flatnonzero(length >= LEAST_NS)
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
    if end - start < LEAST_NS:
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


def deadlock(f: Figures) -> Verdict | None:
    """Did threads wait for each other in a circle?"""
    circle = find_circle(f.process, f.turns)
    if circle is None:
        return _perhaps(f)
    rows = f.process.blocks[list(circle.blocks)]
    where = [_stood(f, block) for block in circle.blocks]
    names = [f.name(thread) for thread in rows["thread"].tolist()]
    links = [
        f"{name!r} at {at} in a lock that {names[(i + 1) % len(names)]!r} had"
        for i, (name, at) in enumerate(zip(names, where, strict=True))
    ]
    since = duration(circle.start - f.process.start)
    until = "to the end" if circle.open else f"for {duration(circle.end - circle.start)}, until one gave up"
    return Verdict(
        "deadlock",
        f"Deadlock: from {since} on, {until}, threads waited for each other: {', '.join(links)}.",
        "Take these locks in the same order everywhere, or one lock for what both guard.",
        {"threads": len(names), "since_ns": circle.start - f.process.start, "lost_ns": circle.end - circle.start},
    )


def _perhaps(f: Figures) -> Verdict | None:
    """Several threads that were blocked in locks to the end, of which it is not known who has them."""
    blocks = f.process.blocks
    mine = (f.block_causes == BlockCause.LOCK) & (blocks["ended"] == BlockEnd.OPEN) & (blocks["timed"] == 0)
    mine &= blocks["end"] - blocks["start"] >= LEAST_NS
    rows = np.flatnonzero(mine)
    if len(rows) < 2 or len(np.unique(blocks["lock"][rows])) < 2 or len(f.process.held):
        return None
    names = [f"{f.name(int(blocks['thread'][row]))!r} at {_stood(f, int(row))}" for row in rows[:4]]
    since = int(blocks["start"][rows].max())
    return Verdict(
        "deadlock",
        f"Blocked to the end, from {duration(since - f.process.start)} on: {', '.join(names)}, each in a lock that "
        "nobody gave back.",
        "They may wait for each other: this Python does not tell who has a lock. See which locks are taken above those "
        "lines, and take them in the same order everywhere.",
        {"threads": len(rows), "since_ns": since - f.process.start, "lost_ns": int(blocks["end"][rows].min()) - since},
    )


def _stood(f: Figures, block: int) -> str:
    known = f.process.stacks
    stack = known.block[[block]] if known is not None else np.array([-1])
    site = f.sites.classify(f.process.blocks["thread"][[block]], stack).sites[0]
    return site.where if site.function else "an unknown line"

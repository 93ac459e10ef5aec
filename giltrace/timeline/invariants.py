"""The two promises of every timeline, checked: one holder at a time, and states that add up."""

from __future__ import annotations

from itertools import chain

import numpy as np

from giltrace.timeline.axis import Bools, Ints, LifeAxis, union, union_length
from giltrace.timeline.model import Array, Process

#: So many offenders are named; the rest is counted.
NAMED = 3
#: So many holds are looked at at a time.
_PIECE = 1 << 19


def check(process: Process) -> tuple[str, ...]:
    """Say in words which promises the timeline of this process breaks; empty if none.

    Checked: no two holders of one GIL overlap; held and free time of each GIL add up to the process's wall time; the
    states of each thread follow each other without gap or overlap from its start to its end; a thread is blocked once
    at a time, within its life, and neither takes nor releases a GIL meanwhile.
    """
    return tuple(chain(_reversed(process), _gils(process), _tiling(process), _blocks(process)))


def _told(process: Process, rule: str, count: int, examples: list[str]) -> str:
    more = f", and {count - len(examples)} more" if count > len(examples) else ""
    return f"{rule}: {count} ({'; '.join(examples)}{more})"


def _name(process: Process, thread: int) -> str:
    if thread >= len(process.threads):
        return f"unknown thread {thread}"
    return f"{process.threads[thread].name!r} (tid {process.threads[thread].tid})"


def _after(process: Process, time: int) -> str:
    return f"{(time - process.start) / 1e9:.9f} s after the start"


def _reversed(process: Process) -> list[str]:
    found = []
    for what, rows in (
        ("holds", process.holds),
        ("waits", process.waits),
        ("runs", process.runs),
        ("blocks", process.blocks),
    ):
        bad = np.flatnonzero(rows["end"] < rows["start"])
        if len(bad):
            told = [f"{_name(process, int(r['thread']))} {_after(process, int(r['start']))}" for r in rows[bad[:NAMED]]]
            found.append(_told(process, f"{what} that end before they start", len(bad), told))
    return found


def _gils(process: Process) -> list[str]:
    found = []
    for gil in range(max(process.gils, int(process.holds["gil"].max()) + 1 if len(process.holds) else 0)):
        # An empty interval overlaps nothing.
        holds = _where(process.holds, (process.holds["gil"] == gil) & (process.holds["end"] > process.holds["start"]))
        if (holds["start"][1:] < holds["start"][:-1]).any():
            holds = holds[np.argsort(holds["start"], kind="stable")]
        found += _overlaps(process, gil, holds)
        found += _wall_time(process, gil, holds)
    return found


def _where(rows: Array, chosen: Bools) -> Array:
    """Those of the rows; nearly always all are chosen, and need no copy."""
    return rows if chosen.all() else rows.take(np.flatnonzero(chosen))


def _overlaps(process: Process, gil: int, holds: Array) -> list[str]:
    reach = np.maximum.accumulate(holds["end"])
    bad = np.flatnonzero(holds["start"][1:] < reach[:-1]) + 1
    if len(bad) == 0:
        return []
    told = []
    for at in bad[:NAMED].tolist():
        earlier = int(np.argmax(holds["end"][:at]))
        one, other = (_name(process, int(holds["thread"][i])) for i in (earlier, at))
        told.append(f"{one} and {other} {_after(process, int(holds['start'][at]))}")
    return [_told(process, f"overlapping holds of GIL {gil}", len(bad), told)]


def _wall_time(process: Process, gil: int, holds: Array) -> list[str]:
    wall = process.end - process.start
    held = int((holds["end"] - holds["start"]).sum())
    if len(holds):
        reach = np.maximum.accumulate(holds["end"])
        gaps = np.maximum(holds["start"][1:] - reach[:-1], 0).sum()
        free = int(gaps) + max(int(holds["start"][0]) - process.start, 0) + max(process.end - int(reach[-1]), 0)
    else:
        free = wall
    if held + free == wall:
        return []
    return [f"GIL {gil}: held {held} ns + free {free} ns is not the wall time of {wall} ns"]


def _tiling(process: Process) -> list[str]:
    if not process.has_sched:
        return []
    states, threads = process.states, len(process.threads)
    thread = states["thread"].copy()
    starts = np.array([t.start for t in process.threads], np.int64)
    ends = np.array([t.end for t in process.threads], np.int64)
    if len(states) and (thread.max() >= threads or (thread[1:] < thread[:-1]).any()):
        return ["states are not sorted by thread"]
    at = np.searchsorted(thread, np.arange(threads + 1))
    used = at[1:] > at[:-1]
    short = starts - ends
    short[used] += np.add.reduceat(states["end"] - states["start"], at[:-1][used])
    broken = np.zeros(threads, np.bool_)
    broken[short != 0] = True
    same = thread[1:] == thread[:-1]
    broken[thread[1:][same & (states["start"][1:] != states["end"][:-1])]] = True
    broken[thread[states["end"] <= states["start"]]] = True
    first, last = at[:-1][used], at[1:][used] - 1
    broken[np.flatnonzero(used)[states["start"][first] != starts[used]]] = True
    broken[np.flatnonzero(used)[states["end"][last] != ends[used]]] = True
    bad = np.flatnonzero(broken)
    if len(bad) == 0:
        return []
    told = [f"{_name(process, i)}: {int(short[i]):+d} ns" for i in bad[:NAMED].tolist()]
    return [_told(process, "threads whose states do not tile their lifetime", len(bad), told)]


def held_and_free(process: Process, gil: int) -> tuple[int, int]:
    """How long (ns) one GIL was held and was free during the process's wall time."""
    holds = _where(process.holds, process.holds["gil"] == gil)
    held = union_length(holds["start"], holds["end"])
    return held, process.end - process.start - held


def _blocks(process: Process) -> list[str]:
    blocks = process.blocks[np.lexsort((process.blocks["start"], process.blocks["thread"]))]
    if not len(blocks):
        return []
    ends = np.array([thread.end for thread in process.threads], np.int64)
    same = blocks["thread"][1:] == blocks["thread"][:-1]
    twice = np.flatnonzero(same & (blocks["start"][1:] < blocks["end"][:-1])) + 1
    outside = np.flatnonzero(blocks["end"] > ends[blocks["thread"]])
    found = []
    for rule, bad in (
        ("threads blocked twice at once", twice),
        ("blocks that outlast their threads", outside),
        ("threads that used a GIL while they were blocked", _at_work(process, blocks)),
    ):
        if len(bad):
            rows = blocks[bad[:NAMED]]
            told = [f"{_name(process, int(r['thread']))} {_after(process, int(r['start']))}" for r in rows]
            found.append(_told(process, rule, len(bad), told))
    return found


def _at_work(process: Process, blocks: Array) -> Ints:
    """Which of the blocks have an acquire or a release of their own thread's in them."""
    axis = LifeAxis.of_threads(process.threads)
    begin, finish = (axis.place(blocks["thread"], blocks[edge]) for edge in ("start", "end"))
    # Of millions of them hardly any lie in blocks, or at their edges, which are sorted by thread and start.
    low, high = union(begin, finish)
    inside = [np.empty(0, np.int64)]
    for at in range(0, len(process.holds), _PIECE):
        rows = process.holds[at : at + _PIECE]
        for edge in ("start", "end"):
            place = axis.place(rows["thread"], rows[edge])
            inside.append(place[place <= high[np.maximum(np.searchsorted(low, place, "right") - 1, 0)]])
    turns = np.sort(np.concatenate(inside))
    first, last = np.searchsorted(turns, begin, "right"), np.searchsorted(turns, finish, "left")
    return np.flatnonzero(first < last).astype(np.int64)

"""What one thread did with the GIL during a stretch of its code, in figures and words."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.expressions import expression
from giltrace.analysis.measure.intervals import covered, disjoint
from giltrace.analysis.site import frame_text
from giltrace.errors import TargetError
from giltrace.integrations.cores import Away
from giltrace.recording.events import ProcessEvents, StackTable
from giltrace.recording.layout import Kind
from giltrace.recording.libraries import Libraries
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.holds import Usage, match
from giltrace.timeline.model import Array, Flag, Thread

#: Seconds: what came longer before the stretch has nothing to do with it.
_BEFORE_TICKS = 1 << 33
#: Who gives the GIL up so soon (ns, without the time it had no core) after it was asked to has heeded that.
HEEDED_NS = 1_000_000
_OWN_FOLDER = str(Path(__file__).parent) + "/"


class Edges(NamedTuple):
    """Readings of the clock, (ticks, ns) each: two around the stretch, and one from as long before as there is one."""

    origin: tuple[int, int]
    begin: tuple[int, int]
    end: tuple[int, int]

    def ns(self, ticks: npt.NDArray[np.int64]) -> Ints:
        """Nanoseconds of CLOCK_MONOTONIC of `ticks`."""
        rate = (self.end[0] - self.origin[0]) / max(self.end[1] - self.origin[1], 1)
        return self.begin[1] + np.rint((ticks.astype(np.int64) - self.begin[0]) / rate).astype(np.int64)


@dataclass(frozen=True)
class Seen:
    """The stretch [`start`, `end`) (ns) of thread number `own`, which used the GIL number `gil`.

    `usage` has the holds and waits of all threads; `askers` are the numbers of those that only asked, which are ours.
    """

    threads: tuple[Thread, ...]
    usage: Usage
    table: StackTable | None
    own: int
    askers: tuple[int, ...]
    gil: int
    start: int
    end: int
    away: Away
    #: When it was looked at, in ns since 1970: source that was written to later is not what ran.
    told_at: int

    @classmethod
    def of(cls, process: ProcessEvents, edges: Edges, tid: int, askers: Set[int], away: Away) -> Seen:
        """Of the records of `process`, their times in ticks, and the ids of the thread and of those that only asked.

        Raises `TargetError` if they have not all been kept.
        """
        own = max((at for at, one in enumerate(process.threads) if one.tid == tid), default=-1)
        asking = tuple(at for at, one in enumerate(process.threads) if one.tid in askers)
        events = process.events
        between = (events["time"] >= edges.begin[0]) & (events["time"] <= edges.end[0]) & (events["thread"] == own)
        mine = events[between]
        taken, given = mine[mine["kind"] == Kind.ACQUIRE], mine[mine["kind"] == Kind.RELEASE]
        if process.lost or not len(taken) or not len(given):
            raise TargetError("records of the GIL were lost: nothing can be said")
        kept = events[events["time"] >= edges.begin[0] - _BEFORE_TICKS].copy()
        kept["time"] = edges.ns(kept["time"])
        start, end = edges.ns(np.array([taken["time"][0], given["time"][-1]])).tolist()
        first, last = (int(kept["time"][at]) for at in (0, -1))
        threads = tuple(Thread(one.tid, one.name, first, last, one.lost) for one in process.threads)
        usage = match(kept, threads, int(kept["gil"].max()) + 1, first)
        return cls(threads, usage, process.stacks, own, asking, int(taken["gil"][0]), start, end, away, time.time_ns())

    @cached_property
    def holds(self) -> Array:
        """The holds of this GIL within the stretch, cut at its edges, but for those of threads that only asked."""
        return self._within(self.usage.holds)

    @cached_property
    def waits(self) -> Array:
        """The waits, likewise."""
        return self._within(self.usage.waits)

    def _within(self, rows: Array) -> Array:
        """Those of this GIL that reach into the stretch, cut at its edges. What is cut was not forced to end."""
        inside = (rows["gil"] == self.gil) & (rows["start"] < self.end) & (rows["end"] > self.start)
        rows = rows[inside & ~np.isin(rows["thread"], self.askers)].copy()
        rows["flags"][rows["end"] > self.end] &= ~np.uint8(Flag.FORCED)
        for edge in ("start", "end"):
            np.clip(rows[edge], self.start, self.end, out=rows[edge])
        kept: Array = rows
        return kept

    def _core_time(self, since: Ints, until: Ints) -> Ints:
        """For how long the thread had a core, or did not want one."""
        spent: Ints = until - since - covered(*self.away[:2], until) + covered(*self.away[:2], since)
        return spent

    @cached_property
    def own_holds(self) -> Array:
        """The thread's own holds within the stretch."""
        mine: Array = self.holds[self.holds["thread"] == self.own]
        return mine

    @cached_property
    def lengths(self) -> Ints:
        """How long each of its own holds was, without the time that it had no core."""
        return self._core_time(self.own_holds["start"], self.own_holds["end"])

    @property
    def length(self) -> int:
        """How long the stretch was, without the time that the thread had no core."""
        return int(self._core_time(np.array([self.start]), np.array([self.end]))[0])

    @property
    def held(self) -> int:
        """How long the thread had the GIL, likewise."""
        return int(self.lengths.sum())

    @property
    def off(self) -> int:
        """How long it neither had nor wanted the GIL, likewise."""
        mine = self.waits[self.waits["thread"] == self.own]
        return max(self.length - self.held - int(self._core_time(mine["start"], mine["end"]).sum()), 0)

    @property
    def share(self) -> float:
        """The share of the thread's own time, that is without waits for the GIL, in which it did without the GIL."""
        return self.off / max(self.off + self.held, 1)

    @property
    def share_at_most(self) -> float:
        """The same, if what is not known of its time without a core is taken as it is best for the thread."""
        return self.off / max(self.off + self._at_least(self.held, self.off), 1)

    def _at_least(self, length: int, rest: int) -> int:
        """How much (ns) of a time of this length it must have had a core, or wanted none, if all the `rest` it did."""
        return max(length - self.away.doubt, self.away.cpu - rest, 0) if self.away.doubt else length

    @cached_property
    def heeded(self) -> Bools:
        """Which of its own holds ended as soon as somebody had asked for the GIL."""
        holds = self.own_holds
        asked = self.usage.switch_requests
        asked = np.sort(asked["time"][asked["gil"] == self.gil])
        first = np.append(asked, self.end)[np.searchsorted(asked, holds["start"], "right")]
        forced = (holds["flags"] & np.uint8(Flag.FORCED)) != 0
        late = self._core_time(np.minimum(first, holds["end"]), holds["end"])
        heeded: Bools = forced & (late < HEEDED_NS)
        return heeded

    @property
    def longest(self) -> int:
        """Which of its own holds was the longest; one that was given up when asked only where there are no others."""
        return int(np.argmax(np.where(self.heeded, self.lengths - (1 << 62), self.lengths)))

    @property
    def stubborn_ns(self) -> int:
        """How long (ns) its longest hold was, at least, that it did not give up when asked; 0 if there is none."""
        longest = int(np.where(self.heeded, 0, self.lengths).max(initial=0))
        return self._at_least(longest, self.length - longest)

    def lost(self, waits: Array, *, mine: bool = True) -> Ints:
        """How much (ns) of each wait another thread had the GIL; the watched one's part counts if `mine`.

        What it takes to get a core once the GIL is free is not lost to the GIL.
        """
        holds = self.holds if mine else self.holds[self.holds["thread"] != self.own]
        start, end = disjoint(holds["start"], holds["end"])
        return covered(start, end, waits["end"]) - covered(start, end, waits["start"])

    @cached_property
    def _own_waits(self) -> tuple[Array, Ints]:
        waits = self.waits[self.waits["thread"] == self.own]
        return waits, self.lost(waits, mine=False)

    @property
    def longest_wait_ns(self) -> int:
        """How long (ns) the thread waited at most at a time while another one had the GIL."""
        return int(self._own_waits[1].max(initial=0))

    @property
    def culprit_of_wait(self) -> str:
        """Who had the GIL then, and where, in words."""
        waits, lost = self._own_waits
        return self.culprit(waits[int(np.argmax(lost))]) if lost.any() else ""

    def culprit(self, wait: np.void) -> str:
        """The thread that had the GIL for most of a wait, and where it stood, in words; "" if none had it."""
        holds = self.holds
        common = np.minimum(holds["end"], wait["end"]) - np.maximum(holds["start"], wait["start"])
        common[holds["thread"] == wait["thread"]] = 0
        if common.max(initial=0) <= 0:
            return ""
        hold = holds[int(np.argmax(common))]
        return " in ".join(filter(None, (self.name(hold["thread"]) or "a thread", self.where(hold))))

    def name(self, thread: int) -> str:
        """The name of a thread; "" if it has none but the command's, which those that are given none inherit."""
        name = self.threads[thread].name
        return "" if name == Path("/proc/self/comm").read_text().rstrip("\n") else name

    def where(self, hold: np.void) -> str:
        """The expression and line that had the GIL for most of a hold, as far as somebody who waited saw; else "".

        A hold that nobody saw is told by where it was given up. A line of a library is told only where no own code
        led to it; our own is none.
        """
        if self.table is None:
            return ""
        usage = self.usage
        stacks = [
            seen[(rows["gil"] == self.gil) & (rows["time"] >= hold["start"]) & (rows["time"] < hold["end"])]
            for rows, seen in ((usage.samples, usage.sample_stacks), (usage.switch_requests, usage.request_stacks))
        ]
        counts = Counter(number for number in np.concatenate(stacks).tolist() if number >= 0)
        if not counts:
            row = usage.holds["end"] == hold["end"]
            counts = Counter(n for n in usage.hold_stacks[row].tolist() if n >= 0 and hold["end"] < self.end)
        told = Counter[str]()
        for number, count in counts.items():
            told[self._line(self.table, number)] += count
        return max(told, key=told.__getitem__, default="")

    def _line(self, table: StackTable, number: int) -> str:
        """What a stack is told by: its innermost own line, or its leaf, of those that our own code led to."""
        first, last = (int(one) for one in table.offsets[number : number + 2])
        frames = table.frames[first:last]
        files = [table.strings[one] for one in frames["file"].tolist()]
        ours = next((at for at, file in enumerate(files) if file.startswith(_OWN_FOLDER)), len(files))
        if ours == 0:
            return ""
        libraries = Libraries()
        at = next((at for at, file in enumerate(files[:ours]) if not libraries.has(file)), 0)
        frame = frames[at]
        text = expression(table, first + at, self.told_at)
        place = frame_text((table.strings[frame["function"]], files[at], int(frame["line"])))
        return f"`{text}` in {place}" if text else place

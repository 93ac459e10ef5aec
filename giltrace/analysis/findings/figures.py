"""The figures that findings are made of: what is counted as a hog's hold, as a step of a convoy, and the sums."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np

from giltrace.analysis.lock_results import LockBlame
from giltrace.analysis.measure import usage
from giltrace.analysis.measure.activity import Activity, activity
from giltrace.analysis.measure.asleep_causes import asleep_causes
from giltrace.analysis.measure.block_causes import block_causes
from giltrace.analysis.measure.collect_calls import calls_collect, seen_collecting
from giltrace.analysis.measure.ending import ending_waits, only_ending
from giltrace.analysis.measure.expressions import Expressions
from giltrace.analysis.measure.lock_blame import Pieces, lock_blame, owners
from giltrace.analysis.measure.off_gil import OffGil, off_gil
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.wait_causes import UNHEEDED_NS, competed_ns, wait_causes
from giltrace.analysis.site import Site
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.model import Flag, Process, State

#: Hogs are collections of garbage if most of what waiters saw in them was that.
COLLECTING_SHARE = 0.5
#: A hold is a hog if it goes on for so many switch intervals after it was asked to drop the GIL: one more is what the
#: next in line would wait anyway ...
HOG_OVERSTAY_INTERVALS = 2
#: ... and for so long that it is in C code, however short the interval.
HOG_OVERSTAY_NS = UNHEEDED_NS
#: One step of a convoy waits for this part of a switch interval: it may begin in the middle of another's turn ...
CONVOY_WAIT_INTERVALS = 0.5
#: ... so much of it while another thread runs with the GIL: the rest may be a core that was not there ...
CONVOY_COMPETED_INTERVALS = 0.1
#: ... and holds the GIL for so long at most: a fifth of what others have in their turns.
CONVOY_HOLD_NS = 1_000_000
#: A thread is in a convoy if it made so many such steps: fewer are a start and an end ...
CONVOY_STEPS = 10
#: ... if most of what it lost to running threads came before them: else something else is to be mended first ...
CONVOY_STEP_SHARE = 0.75
#: ... and if it lost this share of its life to them: without that it would be a third faster, at most. While the holder
#: had no core, or it was being woken up, it waited for cores: neither counts, as a part of its life either.
CONVOY_LOST_SHARE = 0.25
#: A shorter turn with the GIL is one that threads have by waking each other up. What a thread waits for less than that
#: is the rest of such a turn, where the one that was woken up and the one that woke it have a core between them.
TURN_NS = 100_000
#: The GIL is held for much of the time if for half of it: else most of it goes to waiting for something else.
HELD_SHARE = 0.5
#: Threads hardly compete if somebody waits for a running one for at most this share of the time: what that costs is
#: hardly seen beside what runs differ by.
QUIET_SHARE = 0.1
#: A thread contends if it waits for this share of its life; of those that start and join others most wait less.
CONTENDER_SHARE = 0.1
#: What is so of a process that is `one_core`.
ONE_CORE = "The process may use one core only (its CPU affinity, its container's CPU limit)"
#: What to do about a core that was not there, as the end of a sentence ...
_WANTED_CORE = (
    ": see what else ran on this machine (the trace shows it), and what the process may use: its CPU affinity, its "
    "container's CPU limit."
)
#: ... and where the process is `one_core`.
_WANTED_MORE = (
    f". {ONE_CORE}: until it may use more, further threads or processes gain nothing. See what else runs there."
)


class Convoys(NamedTuple):
    """The numbers of the `threads` in a convoy, most steps first, and the `steps` of every thread.

    `waits` (bool, one per wait) are those of about a switch interval, for who ran until asked to stop.
    """

    threads: list[int]
    steps: usage.Steps
    waits: Bools


def convoys(f: Figures) -> Convoys:
    """Find the threads whose short steps each waited for about a switch interval, which others ran out.

    Threads that are as brief as who waits for them, and wait for many such turns, have no switch interval to lower.
    """
    process = f.process
    interval = f.intervals
    waits = usage.lengths(process.waits) >= CONVOY_WAIT_INTERVALS * interval
    nobody = np.zeros(len(f.lives), np.int64)
    if not waits.any():
        return Convoys([], usage.Steps(nobody, nobody, nobody), waits)
    waits &= (f.competed >= CONVOY_COMPETED_INTERVALS * interval) & until_forced(process)
    steps = usage.convoy_steps(process, waits, f.competed, CONVOY_HOLD_NS)
    competed = np.bincount(process.waits["thread"], f.competed, len(f.lives))
    had = f.lives - (f.waited - competed)
    caught = (
        (steps.number >= CONVOY_STEPS)
        & (steps.competed >= CONVOY_STEP_SHARE * competed)
        & (competed >= CONVOY_LOST_SHARE * had)
    )
    return Convoys(sorted(np.flatnonzero(caught).tolist(), key=lambda i: -int(steps.number[i])), steps, waits)


def until_forced(process: Process) -> Bools:
    """Which waits saw a thread give the GIL up because it was asked to."""
    waits, holds = process.waits, process.holds
    found = np.zeros(len(waits), np.bool_)
    forced = holds[(holds["flags"] & np.uint8(Flag.FORCED)) > 0]
    for gil in range(process.gils):
        ends = np.sort(forced["end"][forced["gil"] == gil])
        mine = np.flatnonzero(waits["gil"] == gil)
        start, end = waits["start"][mine], waits["end"][mine]
        found[mine] = np.searchsorted(ends, end, "right") > np.searchsorted(ends, start, "left")
    return found


def hogs(process: Process) -> usage.Overstays:
    """Find the holds that are hogs; others that outlive a request did so for too short a time to count here."""
    return usage.overstays(process, HOG_OVERSTAY_NS, HOG_OVERSTAY_INTERVALS)


class Figures:
    """What the rules look at; what costs more is worked out when it is first asked for."""

    def __init__(self, process: Process, before: int = 0) -> None:
        """`before` is when it was recorded, in ns since 1970: source files that are older tell what was called."""
        self.process = process
        self._before = before
        self.wall = max(process.end - process.start, 1)
        self.lives = np.maximum(usage.lives(process), 1)
        self.held = usage.sum_by_thread(process, process.holds)
        self.waited = usage.sum_by_thread(process, process.waits)
        self.holds = usage.hold_counts(process)
        self.holders = int(np.count_nonzero(self.holds))
        self.held_ns = int(self.held.sum())
        self.held_share = self.held_ns / self.wall
        self.gils = len(np.unique(process.holds["gil"]))
        self.contended_share = max((usage.contended_ns(process, g) for g in range(process.gils)), default=0) / self.wall
        # The time that the threads had: the machine may have had no core for them.
        self.had = max(self.wall - usage.starved_ns(process), 1)
        self.competed_share = competed_ns(process) / self.had
        states = usage.state_sums(process).sum(axis=0)
        self.off_running_ns = int(states[State.OFF_RUNNING])
        self.running_ns = int(states[State.OFF_RUNNING] + states[State.HOLDING_RUNNING])
        busy = self.running_ns if process.has_sched else self.held_ns
        self.busy_share = busy / self.wall
        self.coreless_share = int(states[State.HOLDING_RUNNABLE]) / self.wall
        # What holders lacked a core for is the machine's doing.
        self.used_ns = self.held_ns - int(states[State.HOLDING_RUNNABLE])

    @cached_property
    def causes(self) -> Ints:
        """See `wait_causes`."""
        return wait_causes(self.process)

    @property
    def competed(self) -> Ints:
        """How long each wait went on while another thread ran with the GIL."""
        competed: Ints = self.causes[:, :2].sum(axis=1)
        return competed

    @property
    def held_much(self) -> bool:
        """Whether a GIL was used for `HELD_SHARE` of the time that the threads had."""
        return self.used_ns >= HELD_SHARE * self.had

    @property
    def top(self) -> int:
        """The number of the thread that had the GIL longest."""
        return int(self.held.argmax())

    @property
    def top_share(self) -> float:
        """Of the time that the GIL was held, that in which `top` had it."""
        return float(self.held[self.top] / max(self.held_ns, 1))

    @property
    def one_core(self) -> bool:
        """Whether it is known that the process may not use more than one core."""
        return self.process.cores is not None and self.process.cores.at_once <= 1

    @property
    def wanted_core(self) -> str:
        """What to do about a core that was not there, as the end of a sentence."""
        return _WANTED_MORE if self.one_core else _WANTED_CORE

    @cached_property
    def running(self) -> usage.Running:
        """How long threads ran, any and several at once."""
        return usage.running(self.process)

    @cached_property
    def hand_offs(self) -> int:
        """How often a GIL went from one thread to another."""
        return sum(usage.hand_offs(self.process, gil).number for gil in range(self.process.gils))

    @cached_property
    def turn_ns(self) -> float:
        """How long a thread runs with the GIL before the next one has it, on average."""
        return self.used_ns / max(self.hand_offs, 1)

    @cached_property
    def used_share(self) -> float:
        """See `usage.used_share`."""
        return usage.used_share(self.process)

    @cached_property
    def overlap_share(self) -> float:
        """Of the time that any thread ran, that in which several did."""
        return self.running.several_ns / max(self.running.any_ns, 1)

    @cached_property
    def lasting_share(self) -> float:
        """As `competed_share`, of waits of `TURN_NS` and longer."""
        return competed_ns(self.process, TURN_NS) / self.had

    @cached_property
    def overstays(self) -> usage.Overstays:
        """The hogs' holds, but for those which only kept threads that were to end from doing so."""
        found = hogs(self.process)
        holds = self.process.holds[found.hold]
        kept = ~only_ending(self.process, found.asked, holds["end"], holds["gil"])
        return usage.Overstays(*(column[kept] for column in found))

    @cached_property
    def lost_ns(self) -> int:
        """For how long all threads waited for a GIL, but for what they did so as the process ended."""
        return int(usage.lengths(self.process.waits[~ending_waits(self.process)]).sum())

    @property
    def calls(self) -> OffGil:
        """See `off_gil`. It has a row for each state, and is hardly ever asked for: it is not kept."""
        return off_gil(self.process)

    @cached_property
    def sites(self) -> Sites:
        """The sites of the process."""
        return Sites(self.process)

    @cached_property
    def activity(self) -> Activity:
        """See `analysis.measure.activity`."""
        return activity(self.process)

    @cached_property
    def expressions(self) -> Expressions:
        """What was called, out of the source."""
        return Expressions(self.process, self._before)

    @cached_property
    def block_causes(self) -> Ints:
        """The `BlockCause` of each block."""
        return block_causes(self.process, self.expressions).astype(np.int64)

    def asleep(self, stacks: Ints) -> Ints:
        """The `AsleepCause` of those who slept in these stacks."""
        return asleep_causes(self.process, stacks, self.expressions)

    @cached_property
    def turns(self) -> Pieces:
        """See `analysis.measure.lock_blame.owners`."""
        return owners(self.process, self.block_causes)

    @cached_property
    def lock_blame(self) -> tuple[LockBlame, ...]:
        """See `analysis.measure.lock_blame`."""
        return lock_blame(self.process, self.sites, self.activity, self.block_causes, self.turns)

    @cached_property
    def _seen_collecting(self) -> tuple[Ints, Ints]:
        """Of each hog, the samples of its holder, and those in which this one was collecting garbage."""
        return seen_collecting(self.process, self.overstays.hold)

    @cached_property
    def collecting_share(self) -> float:
        """Of the samples of the hogs' holders, those in which these were collecting garbage."""
        seen, collecting = self._seen_collecting
        return int(collecting.sum()) / max(int(seen.sum()), 1)

    @cached_property
    def collections(self) -> Bools:
        """Which hogs were collections of garbage in most of their samples: others may free objects, or compute."""
        seen, collecting = self._seen_collecting
        most: Bools = (seen > 0) & (collecting >= COLLECTING_SHARE * seen)
        return most

    @cached_property
    def called_for(self) -> tuple[Site, ...]:
        """Where the program called for the hogs that were collections, most of their time first; nowhere if it did not
        for most of them, so far as the source tells.
        """
        stacks, length = self.process.stacks, self.overstays.length[self.collections]
        if stacks is None or not len(length):
            return ()
        # Each gives the GIL up as it returns: its own line is the last.
        hold = self.overstays.hold[self.collections]
        stack, row = np.unique(stacks.hold_end[hold], return_inverse=True)
        called = np.array([calls_collect(self.expressions, one) for one in stack.tolist()], np.bool_)[row.ravel()]
        if int(length[called].sum()) < COLLECTING_SHARE * int(length.sum()):
            return ()
        found = self.sites.classify(self.process.holds["thread"][hold[called]], stacks.hold_end[hold[called]])
        ns = np.bincount(found.of_row, weights=length[called])
        return tuple(found.sites[at] for at in np.argsort(-ns, kind="stable").tolist())

    @cached_property
    def asleep_share(self) -> float:
        """Of the time that the hogs overstayed, that in which they were blocked in the kernel."""
        over, holds = self.overstays, self.process.holds
        thread, end = holds["thread"][over.hold], holds["end"][over.hold]
        slept = usage.in_state(self.process, State.HOLDING_BLOCKED, thread, over.asked, end)
        return float(slept.sum() / max(int(over.length.sum()), 1))

    @cached_property
    def intervals(self) -> Ints:
        """The switch interval (ns) that each wait was under."""
        return usage.switch_interval(self.process, self.process.waits["gil"], self.process.waits["start"])

    @cached_property
    def convoy(self) -> Convoys:
        """The threads in a convoy."""
        return convoys(self)

    @cached_property
    def contenders(self) -> int:
        """How many threads wait for `CONTENDER_SHARE` of their lives."""
        return int(np.count_nonzero(self.waited >= CONTENDER_SHARE * self.lives))

    @cached_property
    def waiters(self) -> int:
        """How many threads waited at all: those that the sum of `waited` is of."""
        return int(np.count_nonzero(self.waited))

    def name(self, thread: int) -> str:
        """What to call a thread."""
        known = self.process.threads[thread]
        return known.name or f"tid {known.tid}"

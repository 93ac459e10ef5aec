"""Vectorised measurements of one process that summaries and verdicts are made of; times in ns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.at_once import AtOnce, at_once
from giltrace.analysis.measure.own_code import own_holds
from giltrace.timeline.axis import NEVER, Bools, Ints, LifeAxis, ended, union_length
from giltrace.timeline.model import Array, Flag, Process, State
from giltrace.timeline.once import once

#: `sys.getswitchinterval()` as Python starts with it.
DEFAULT_SWITCH_INTERVAL_NS = 5_000_000

#: Without context switches on record, a hold that goes on for less than this after it was asked to drop the GIL may as
#: well have had no core: with other work on the machine, the kernel gives one again after some turns of a few ms.
UNEXPLAINED_NS = 50_000_000
#: Coming to a process and leaving it takes giltrace some 10 ms of its time, and on a busy machine some times as much.
ATTACHED_NS = 200_000_000

#: So many states are added up at a time.
_PIECE = 1 << 19

_PARTIAL = np.uint8(Flag.PARTIAL_START | Flag.PARTIAL_END)


def switch_interval(process: Process, gil: npt.NDArray[Any], time: npt.NDArray[Any]) -> Ints:
    """The switch interval in force for GIL `gil` at each `time` (both one per row).

    Python's default for a GIL that nobody waited for: there the interval had no effect.
    """
    result = np.full(len(time), DEFAULT_SWITCH_INTERVAL_NS, np.int64)
    for one in np.unique(process.switch_intervals["gil"]).tolist():
        seen = process.switch_intervals[process.switch_intervals["gil"] == one]
        rows = np.flatnonzero(gil == one)
        at = np.searchsorted(seen["start"], time[rows], "right") - 1
        result[rows] = seen["ns"][np.maximum(at, 0)]
    return result


def lengths(rows: Array) -> Ints:
    """Length of each interval."""
    result: Ints = rows["end"] - rows["start"]
    return result


def lives(process: Process) -> Ints:
    """How long each thread lived."""
    return np.array([thread.end - thread.start for thread in process.threads], np.int64)


def _sums(cell: npt.NDArray[Any], length: Ints, cells: int) -> Ints:
    # bincount adds in float64: exact up to 2**53 ns, which is 104 days.
    return np.bincount(cell, weights=length, minlength=cells).astype(np.int64)


def count_by_thread(process: Process, rows: Array) -> Ints:
    """How many of the rows each thread has."""
    return np.bincount(rows["thread"], minlength=len(process.threads)).astype(np.int64)


def sum_by_thread(process: Process, rows: Array) -> Ints:
    """Total length of each thread's rows."""
    return _sums(rows["thread"], lengths(rows), len(process.threads))


def longest_by_thread(process: Process, rows: Array) -> Ints:
    """The longest of each thread's rows, 0 without any."""
    result = np.zeros(len(process.threads), np.int64)
    np.maximum.at(result, rows["thread"], lengths(rows))
    return result


def hold_counts(process: Process, rows: Bools | None = None) -> Ints:
    """How many holds each thread had, of these `rows` (bool, one per hold), or of all; those that were gathered too."""
    thread, more = process.holds["thread"], process.gathered
    if rows is not None:
        more = more[rows[more["hold"]]]
    count = np.bincount(thread if rows is None else thread[rows], minlength=len(process.threads))
    return count + _sums(thread[more["hold"]], more["count"] - 1, len(process.threads))


def hold_lengths(process: Process) -> Ints:
    """Length of each hold; of one that stands for several, of the longest of these."""
    length = lengths(process.holds)
    length[process.gathered["hold"]] = process.gathered["longest"]
    return length


def longest_holds(process: Process) -> Ints:
    """The longest hold of each thread, 0 without any; of those that were gathered too."""
    result = np.zeros(len(process.threads), np.int64)
    np.maximum.at(result, process.holds["thread"], hold_lengths(process))
    return result


@once
def state_sums(process: Process) -> Ints:
    """Time of each thread in each state, shape (threads, 7)."""
    total = np.zeros(len(process.threads) * len(State), np.int64)
    for at in range(0, len(process.states), _PIECE):
        rows = process.states[at : at + _PIECE]
        total += _sums(rows["thread"] * np.uint32(len(State)) + rows["state"], lengths(rows), len(total))
    return total.reshape(-1, len(State))


def of_gil(rows: Array, gil: int) -> Array:
    """The rows that concern one GIL."""
    mine = rows["gil"] == gil
    # Nearly always there is one GIL: no need to copy all rows.
    chosen: Array = rows if mine.all() else rows[mine]
    return chosen


class WaitLengths(NamedTuple):
    """Per thread: longest wait and nearest-rank percentiles; 0 for threads that never waited."""

    longest: Ints
    p50: Ints
    p99: Ints


def wait_lengths(process: Process) -> WaitLengths:
    """How long each thread's waits were."""
    length = lengths(process.waits)
    order = np.lexsort((length, process.waits["thread"]))
    length = length[order]
    count = count_by_thread(process, process.waits)
    first = np.cumsum(count) - count

    def rank(quantile: float) -> Ints:
        result = np.zeros(len(count), np.int64)
        some = count > 0
        at = np.ceil(quantile * count[some]).astype(np.int64) - 1
        result[some] = length[first[some] + np.maximum(at, 0)]
        return result

    return WaitLengths(rank(1.0), rank(0.5), rank(0.99))


@once
def contended_ns(process: Process, gil: int) -> int:
    """How long at least one thread waited for this GIL."""
    waits = of_gil(process.waits, gil)
    return union_length(waits["start"], waits["end"])


class HandOffs(NamedTuple):
    """Hand-offs of one GIL: `latency` of each, and whether its taker `waited` already at the release.

    Of those between quiet holds that were gathered, `passed` (dtype `recording.events.HAND_OFF`) took as long; there
    are `gathered` of them.
    """

    latency: Ints
    waited: Bools
    passed: Array
    gathered: int

    @property
    def number(self) -> int:
        """How many there were."""
        return len(self.latency) + self.gathered

    @property
    def median(self) -> int | None:
        """The median latency of all, None without any."""
        ns = np.append(self.latency, self.passed["ns"])
        order = np.argsort(ns)
        ns, reach = ns[order], np.cumsum(np.append(np.ones(len(self.latency), np.int64), self.passed["count"])[order])
        if not len(ns):
            return None
        middle = np.searchsorted(reach, ((reach[-1] - 1) // 2, reach[-1] // 2), "right")
        return int(ns[middle].mean())


@once
def hand_offs(process: Process, gil: int) -> HandOffs:
    """Releases followed by an acquire by a different thread, leaving out ends and starts that were not seen."""
    gathered = np.zeros(len(process.holds), np.bool_)
    gathered[process.gathered["hold"]] = True
    index = np.flatnonzero(process.holds["gil"] == gil)
    holds = of_gil(process.holds, gil)
    passed = holds["thread"][1:] != holds["thread"][:-1]
    passed &= (holds["flags"][:-1] & np.uint8(Flag.PARTIAL_END)) == 0
    passed &= (holds["flags"][1:] & np.uint8(Flag.PARTIAL_START)) == 0
    # From and to those that stand for others there were as many as these say.
    passed &= ~gathered[index[:-1]] & ~gathered[index[1:]]
    at = np.flatnonzero(passed)
    asked = np.full(len(process.holds), np.iinfo(np.int64).max)
    led = process.waits["hold"] >= 0
    asked[process.waits["hold"][led]] = process.waits["start"][led]
    latency: Ints = holds["start"][at + 1] - holds["end"][at]
    between = process.gathered["hand_offs"][process.holds["gil"][process.gathered["hold"]] == gil]
    told = process.passed[process.passed["gil"] == gil]
    return HandOffs(latency, asked[index[at + 1]] <= holds["end"][at], told, int(between.sum()))


class Overstays(NamedTuple):
    """Holds that outlived a switch request: index of the `hold`, for how long, time without a core left out, and the
    instant at which it was `asked` first.
    """

    hold: Ints
    length: Ints
    asked: Ints


#: From a switch request to the eval loop's giving the GIL up, and from its waking up to the release: at most.
YIELD_NS = 100_000


def overstays(process: Process, at_least: int, intervals: int = 0) -> Overstays:
    """Holds that went on for `at_least` ns after they were first asked to drop the GIL, and so many switch `intervals`.

    Time in which the operating system had no core for the holder, or giltrace had it stopped, is not its doing and is
    taken off, and so is its sleep on the way to giving the GIL up. Holds in which giltrace came into a running program,
    or left it, do not count: it was at work in them; but one that it came into and left counts from `ATTACHED_NS` on.
    Where context switches are not on record, shorter ones than `UNEXPLAINED_NS` may be just that and are left out, as
    are giltrace's own holds (`own_holds`).
    """
    found, since = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for gil in range(process.gils):
        holds = of_gil(process.holds, gil)
        asked = of_gil(process.switch_requests, gil)["time"]
        if len(asked) == 0 or len(holds) == 0:
            continue
        first = asked[np.minimum(ended(asked, holds["start"]), len(asked) - 1)]
        late = np.flatnonzero((first > holds["start"]) & (first < holds["end"]))
        found.append(np.flatnonzero(process.holds["gil"] == gil)[late])
        since.append(first[late])
    hold, asked = np.concatenate(found), np.concatenate(since)
    thread, end = process.holds["thread"][hold], process.holds["end"][hold]
    length = end - asked
    length -= in_state(process, State.HOLDING_RUNNABLE, thread, asked, end)
    length -= _stopped(process, thread, asked, end) + _yielding(process, thread, asked, end)
    keep = length >= _limits(process, hold, at_least, intervals)
    return Overstays(hold[keep], length[keep], asked[keep])


def _limits(process: Process, hold: Ints, at_least: int, intervals: int) -> Ints:
    """For how long each of these holds has to go on after it was asked, to be told."""
    rows = process.holds[hold]
    limits = np.maximum(intervals * switch_interval(process, rows["gil"], rows["start"]), at_least)
    if not process.has_sched:
        limits = np.maximum(limits, UNEXPLAINED_NS)
    own = own_holds(process)[hold]
    if process.left:
        all_the_time = ((rows["flags"] & np.uint8(Flag.PARTIAL_END)) != 0) & (rows["start"] <= process.start)
        own |= ((rows["flags"] & _PARTIAL) != 0) & ~all_the_time
        limits = np.where(all_the_time, np.maximum(limits, ATTACHED_NS), limits)
    return np.where(own, NEVER, limits)


def in_state(process: Process, state: State, thread: npt.NDArray[Any], start: Ints, end: Ints) -> Ints:
    """How long each thread was in a state from start to end."""
    if len(start) == 0:
        return np.zeros(0, np.int64)
    states = process.states.take(np.flatnonzero(process.states["state"] == state))
    if len(states) == 0:
        return np.zeros(len(start), np.int64)
    axis = LifeAxis.of_threads(process.threads)
    begin = axis.place(states["thread"], states["start"])
    spent = np.append(0, np.cumsum(lengths(states)))

    def until(time: Ints) -> Ints:
        place = axis.place(thread, time)
        at = np.searchsorted(begin, place, "right")
        inside = np.minimum(place - begin[np.maximum(at - 1, 0)], lengths(states)[np.maximum(at - 1, 0)])
        return np.where(at > 0, spent[np.maximum(at - 1, 0)] + inside, 0)

    return until(end) - until(start)


def _yielding(process: Process, thread: npt.NDArray[Any], asked: Ints, end: Ints) -> Ints:
    """How long each thread slept on the way to giving the GIL up: from right after it was asked until right before.

    Who asks has the lock that guards the GIL; the holder waits for that, and then for a core to go on.
    """
    if len(asked) == 0:
        return np.zeros(0, np.int64)
    blocked = process.states.take(np.flatnonzero(process.states["state"] == State.HOLDING_BLOCKED))
    if len(blocked) == 0:
        return np.zeros(len(asked), np.int64)
    axis = LifeAxis.of_threads(process.threads)
    begin = axis.place(blocked["thread"], blocked["start"])
    first = np.minimum(np.searchsorted(begin, axis.place(thread, asked)), len(blocked) - 1)
    sleep = blocked[first]
    at_once = (sleep["start"] >= asked) & (sleep["start"] <= asked + YIELD_NS) & (sleep["end"] >= end - YIELD_NS)
    mine = at_once & (sleep["thread"] == thread) & (sleep["start"] < end)
    slept: Ints = np.where(mine, np.minimum(sleep["end"], end) - sleep["start"], 0)
    return slept


def _stopped(process: Process, thread: npt.NDArray[Any], start: Ints, end: Ints) -> Ints:
    """How long giltrace had each thread stopped from start to end."""
    spent = np.zeros(len(start), np.int64)
    for stop in process.stops:
        overlap = np.minimum(end, stop["end"]) - np.maximum(start, stop["start"])
        spent += np.where(thread == stop["thread"], np.maximum(overlap, 0), 0)
    return spent


class Running(NamedTuple):
    """Wall time in which at least one thread ran (`any_ns`), and in which at least two could have (`several_ns`).

    A thread that is runnable could have run, had there been a core. Threads that wait for the GIL could not.
    """

    any_ns: int
    several_ns: int


def running(process: Process) -> Running:
    """How much the threads of the process ran, or were ready to run, at the same time."""
    known = _at_once(process)
    return Running(known.ran, min(known.several_ready, known.ran))


def gils_at_once(processes: Sequence[Process]) -> float:
    """How many GILs were held on average while at least one was; 0 if none ever was."""
    start, end = (
        np.concatenate([np.empty(0, np.int64), *(one.holds[edge] for one in processes)]) for edge in ("start", "end")
    )
    order = np.argsort(start, kind="stable")
    held = union_length(start[order], end[order])
    return float((end - start).sum() / held) if held else 0.0


def used_share(process: Process) -> float:
    """Share of the time that the threads had for using the GIL in which one had it, while two or more of them lived.

    They have no time while there is no core for those that could run. 0 if there are never two threads with a GIL.
    """
    begin, end = _several(process)
    if np.count_nonzero(count_by_thread(process, process.holds)) < 2:
        return 0.0
    if not process.has_sched:
        held = np.minimum(process.holds["end"], end) - np.maximum(process.holds["start"], begin)
        return float(np.maximum(held, 0).sum() / max(end - begin, 1))
    known = _at_once(process)
    return float(known.had / max(end - begin - known.starved, 1))


def starved_ns(process: Process) -> int:
    """Wall time in which threads could run and none had a core; 0 without scheduling data."""
    known = _at_once(process)
    return known.ready - known.ran


def _at_once(process: Process) -> AtOnce:
    return at_once(process, *_several(process))


@once
def _several(process: Process) -> tuple[int, int]:
    """From when to when two or more threads that used a GIL lived; no time if there are never two."""
    holders = [process.threads[i] for i in np.flatnonzero(count_by_thread(process, process.holds)).tolist()]
    if len(holders) < 2:
        return process.start, process.start
    return sorted(t.start for t in holders)[1], sorted(t.end for t in holders)[-2]


class Steps(NamedTuple):
    """Per thread: holds that look like one step of a convoy, and the waits before them.

    `competed` is for how long these went on while another thread ran with the GIL, `median_wait` the median of their
    length, or 0.
    """

    number: Ints
    competed: Ints
    median_wait: Ints


def step_waits(process: Process, chosen: npt.NDArray[np.bool_], longest_hold: int) -> Ints:
    """The `chosen` waits (bool, one per wait) that each led to a hold of at most `longest_hold` ns, given up
    voluntarily: their numbers.
    """
    led = np.flatnonzero(chosen & (process.waits["hold"] >= 0))
    holds = process.holds[process.waits["hold"][led]]
    unforced = (holds["flags"] & (np.uint8(Flag.FORCED) | _PARTIAL)) == 0
    step: Ints = led[unforced & (lengths(process.waits)[led] > 0) & (lengths(holds) <= longest_hold)]
    return step


def convoy_steps(process: Process, chosen: npt.NDArray[np.bool_], competed: Ints, longest_hold: int) -> Steps:
    """Holds of at most `longest_hold` ns given up voluntarily, each after a `chosen` wait (bool, one per wait).

    `competed` (ns, one per wait) is for how long another thread ran with the GIL meanwhile.
    """
    step = step_waits(process, chosen, longest_hold)
    thread, waited, lost = process.waits["thread"][step], lengths(process.waits)[step], competed[step]
    count = np.bincount(thread, minlength=len(process.threads)).astype(np.int64)
    first = np.cumsum(count) - count
    ordered = waited[np.lexsort((waited, thread))]
    median = np.zeros(len(count), np.int64)
    some = count > 0
    median[some] = ordered[(first + count // 2)[some]]
    return Steps(count, _sums(thread, lost, len(count)), median)

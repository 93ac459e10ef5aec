"""How far the clock of a file is from the recording's: known where the clock is, else found by when threads ran.

In both cases the file's times are held against the recording: a thread that stamps its own work runs, a sampler looks
at threads that can run. A file that does not fit is of another run, or of another clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from giltrace.errors import MergeError
from giltrace.merging.parsed import Clock, Parsed
from giltrace.recording.alignment import Readings, best_fit
from giltrace.timeline.model import Process, State, Timeline

Ints = npt.NDArray[np.int64]

#: Readings that are held against the recording; more make it no more certain. The product with stretches is bounded.
_READINGS = 400
_MOST_PAIRS = 20_000_000
#: Which part of them must fit, of a tracer's and of a sampler's: that one looks at a thread, and at the clock later.
_FITTING, _FITTING_SAMPLED = 0.9, 0.7
#: Which part of them may be taken for noise where all but the best place is ruled out.
_FORGIVEN, _FORGIVEN_SAMPLED = 0.01, 0.04
#: What is uncertain by more is of no use beside waits of ms.
_MOST_ERROR_NS = 50_000_000
#: The two clocks of a machine differ by a constant, up to how well a profiler converts to it.
_CONVERTED_NS = 10_000
_ROUNDED_NS = 1_000
#: By more than that it is set; by less, it was read twice.
_STEPPED_NS = 1_000_000
#: A thread is said to run a little before and after it reads a clock, by another clock and a rounded time.
_SLACK_NS = 2_000
_NAMES: dict[Clock, str] = {
    "monotonic": "CLOCK_MONOTONIC",
    "realtime": "CLOCK_REALTIME",
    "boottime": "CLOCK_BOOTTIME",
}
_CAN_RUN = (State.HOLDING_RUNNING, State.HOLDING_RUNNABLE, State.OFF_RUNNING, State.OFF_RUNNABLE)

#: Where a track of a file is in the timeline: its process and its thread, by number.
Place = tuple[int, int]


@dataclass(frozen=True)
class Alignment:
    """The `distance` to add to a file's times, what its `clock` is in words, and the bound on the error.

    Of `readings` that were held against when threads ran, `fitting` fit.
    """

    distance: int
    clock: str
    error_ns: int
    readings: int = 0
    fitting: int = 0


def align(
    parsed: Parsed,
    places: Mapping[int, Place],
    timeline: Timeline,
    named: Clock | None = None,
    stepped_ns: int | None = None,
) -> Alignment:
    """Find the distance between the clocks; `places` are those of the tracks (by number) that are threads recorded.

    `named` is what the user says the clock is. `stepped_ns` is how far CLOCK_REALTIME was moved since the recording,
    None if that is not known. Raises `MergeError` if the distance cannot be known, or nothing fits.
    """
    readings = _readings(parsed, places, timeline)
    clock = named or parsed.clock
    if clock is not None:
        return _by_clock(parsed, readings, timeline, clock, stepped_ns)
    fitting = [found for one in _NAMES if (found := _tried(parsed, readings, timeline, one, stepped_ns)) is not None]
    if fitting and readings:
        return fitting[0]
    return _searched(parsed, readings, timeline)


def _by_clock(
    parsed: Parsed, readings: Sequence[Readings], timeline: Timeline, clock: Clock, stepped_ns: int | None
) -> Alignment:
    distance = -_ahead(timeline, clock)
    within = _within(parsed, timeline, distance)
    if not within:
        first, last = int(parsed.rows["start"].min()) + distance, int(parsed.rows["end"].max()) + distance
        when = (
            f"{(timeline.start - last) / 1e9:,.3f} s before the recording"
            if last < timeline.start
            else f"{(first - timeline.end) / 1e9:,.3f} s after the recording"
        )
        raise MergeError(
            f"no span of it falls into the recording: by {_NAMES[clock]} its nearest is {when}",
            "merge the file of the same run, or name another clock with --clock",
        )
    total, fitting = _fitting(parsed, readings, timeline, distance)
    if total and fitting < total * _needed(parsed):
        raise MergeError(
            f"its times are not {_NAMES[clock]}'s: at {total - fitting} of {total} its threads did not run",
            "merge the file of the same run, or name another clock with --clock",
        )
    error = parsed.error_ns + timeline.clock_error_ns + _ROUNDED_NS
    words = _NAMES[clock]
    if clock == "realtime":
        error += _CONVERTED_NS
        if stepped_ns is not None and abs(stepped_ns) < _STEPPED_NS:
            error += abs(stepped_ns)
        elif readings:
            error += _loose(readings, distance)
        else:
            words += ", if nobody set it meanwhile"
    return Alignment(distance, words, error, total, fitting)


def _tried(
    parsed: Parsed, readings: Sequence[Readings], timeline: Timeline, clock: Clock, stepped_ns: int | None
) -> Alignment | None:
    try:
        found = _by_clock(parsed, readings, timeline, clock, stepped_ns)
    except MergeError:
        return None
    return found if found.readings else None


def _searched(parsed: Parsed, readings: Sequence[Readings], timeline: Timeline) -> Alignment:
    """Find the one distance at which the file's threads ran when it says that they did."""
    if not readings:
        raise MergeError(
            "its clock is not known, and cannot be found: no thread of it is one with core switches on record",
            "name it: --clock monotonic, realtime or boottime; or record with core switches (`giltrace doctor`)",
        )
    rows = parsed.rows
    edges = timeline.start - int(rows["start"].min()), timeline.end - int(rows["end"].max())
    total = sum(len(one.times) for one in readings)
    forgiven = int(total * (_FORGIVEN_SAMPLED if parsed.sampled else _FORGIVEN))
    fit = best_fit(readings, min(edges), max(edges), forgiven=forgiven)
    if fit is None or fit.covered < total * _needed(parsed):
        best = 0 if fit is None else fit.covered
        raise MergeError(
            f"it fits nowhere in the recording: at best {best} of its {total} readings are at times at which its "
            "threads ran",
            "merge the file of the same run; if it is, name its clock with --clock",
        )
    error = (fit.high - fit.low + 1) // 2
    if error > _MOST_ERROR_NS:
        raise MergeError(
            f"its clock cannot be found: its threads ran so steadily that it fits within {2 * error / 1e9:,.3f} s",
            "name its clock with --clock, or merge a longer file of threads that also sleep",
        )
    words = "found by when its threads ran"
    return Alignment((fit.low + fit.high) // 2, words, error + _SLACK_NS + parsed.error_ns, total, fit.covered)


def _ahead(timeline: Timeline, clock: Clock) -> int:
    return {"monotonic": 0, "realtime": timeline.realtime_offset, "boottime": timeline.boottime_offset}[clock]


def _needed(parsed: Parsed) -> float:
    return _FITTING_SAMPLED if parsed.sampled else _FITTING


def _within(parsed: Parsed, timeline: Timeline, distance: int) -> int:
    """How many spans reach into the recording."""
    rows = parsed.rows
    return int(((rows["end"] + distance >= timeline.start) & (rows["start"] + distance <= timeline.end)).sum())


def _fitting(parsed: Parsed, readings: Sequence[Readings], timeline: Timeline, distance: int) -> tuple[int, int]:
    """Of how many readings within the recording how many fit at a `distance`."""
    slack = _ROUNDED_NS + timeline.clock_error_ns + (parsed.error_ns if parsed.sampled else _CONVERTED_NS)
    inside = [
        one._replace(times=one.times[(one.times + distance >= timeline.start) & (one.times + distance < timeline.end)])
        for one in readings
    ]
    fitting = 0
    for one in inside:
        run = np.searchsorted(one.ends, one.times + distance - slack)
        begin = np.append(one.begins, np.iinfo(np.int64).max)[run]
        fitting += int((begin <= one.times + distance + slack).sum())
    return sum(len(one.times) for one in inside), fitting


def _loose(readings: Sequence[Readings], distance: int) -> int:
    """How far from `distance` the readings fit as well as there: a bound where nothing better is known."""
    total = sum(len(one.times) for one in readings)
    nearby = distance - _MOST_ERROR_NS, distance + _MOST_ERROR_NS
    fit = best_fit(readings, *nearby, forgiven=int(total * _FORGIVEN))
    return _MOST_ERROR_NS if fit is None else max(distance - fit.low, fit.high - distance) + _SLACK_NS


def _readings(parsed: Parsed, places: Mapping[int, Place], timeline: Timeline) -> list[Readings]:
    """The times that each thread stamped, or was looked at, spread over the file, and when that thread ran.

    None of a thread without core switches on record.
    """
    found = []
    used = [track for track in places if timeline.processes[places[track][0]].has_sched]
    most = max(10, _READINGS // max(1, len(used)))
    for track in used:
        rows = parsed.rows[parsed.rows["track"] == track]
        times = np.unique(rows["start"] if parsed.sampled else np.concatenate((rows["start"], rows["end"])))
        process, thread = places[track]
        begins, ends = _running(timeline.processes[process], thread, sampled=parsed.sampled)
        if len(times) and len(begins):
            wanted = max(10, min(most, _MOST_PAIRS // len(begins)))
            chosen = np.unique(np.linspace(0, len(times) - 1, min(wanted, len(times))).astype(np.int64))
            found.append(Readings(times[chosen], begins, ends))
    return found


def _running(process: Process, thread: int, *, sampled: bool) -> tuple[Ints, Ints]:
    """When a thread had a core; for a sampler, when it had or wanted one: begins and ends, in order and disjoint."""
    table = process.states[np.isin(process.states["state"], _CAN_RUN)] if sampled else process.runs
    table = table[table["thread"] == thread]
    begins, ends = table["start"].astype(np.int64) - _SLACK_NS, table["end"].astype(np.int64) + _SLACK_NS
    first = np.append(True, begins[1:] > ends[:-1])[: len(table)]
    return begins[first], ends[np.append(first[1:], True)[: len(table)]]

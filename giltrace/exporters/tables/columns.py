"""A timeline as tables: the columns that CSV and Parquet files have, in pieces that fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.exporters._names import labels
from giltrace.exporters._places import KNOWN_BY, Places
from giltrace.exporters._relations import relate
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Array, Flag, Process, State, Timeline

_PARTIAL = Flag.PARTIAL_START | Flag.PARTIAL_END
_KNOWN_BY = list(KNOWN_BY.values())

#: Rows of one piece.
PIECE = 1 << 16


class Texts(NamedTuple):
    """A column of texts, few of them distinct: row i is ``values[code[i]]``."""

    code: npt.NDArray[Any]
    values: Sequence[str]


#: Integers, booleans, shares of 1 with four decimals, or texts, all columns of a piece equally long.
Column = npt.NDArray[Any] | Texts
Columns = dict[str, Column]


def _processes(timeline: Timeline) -> Iterator[Columns]:
    each = timeline.processes
    yield {
        "pid": _numbers([process.pid for process in each]),
        "ppid": _numbers([process.ppid for process in each]),
        "python": _distinct([process.python for process in each]),
        "cmdline": _distinct([process.cmdline for process in each]),
        "start": _numbers([process.start for process in each]),
        "end": _numbers([process.end for process in each]),
        "duration": _numbers([process.end - process.start for process in each]),
        "gils": _numbers([process.gils for process in each]),
        "has_sched": np.array([process.has_sched for process in each], np.bool_),
        "lost": _numbers([process.lost for process in each]),
        "lost_stacks": _numbers([process.lost_stacks for process in each]),
    }


def _threads(timeline: Timeline) -> Iterator[Columns]:
    each = [(process, at) for process in timeline.processes for at in process.chosen_threads]
    threads = [process.threads[at] for process, at in each]
    names = {id(process): labels(process) for process in timeline.processes}
    yield {
        "pid": _numbers([process.pid for process, _ in each]),
        "tid": _numbers([thread.tid for thread in threads]),
        "thread": _distinct([names[id(process)][at] for process, at in each]),
        "start": _numbers([thread.start for thread in threads]),
        "end": _numbers([thread.end for thread in threads]),
        "duration": _numbers([thread.end - thread.start for thread in threads]),
        "lost": _numbers([thread.lost for thread in threads]),
    }


def _holds(timeline: Timeline) -> Iterator[Columns]:
    before = 0
    for process in timeline.processes:
        places = Places(process, relate(process))
        for at, rows in _pieces(process, process.holds):
            yield {
                "hold": before + at,
                **_interval(process, rows),
                "gil": rows["gil"],
                "core": rows["core"],
                "forced": _flagged(rows, Flag.FORCED),
                "partial": _flagged(rows, _PARTIAL),
                "site": Texts(places.site(places.hold_stack[at]), places.texts),
                "own_line": Texts(places.own_line(places.hold_stack[at]), places.texts),
                "known_by": Texts(places.hold_source[at], _KNOWN_BY),
            }
        before += len(process.holds)


def _waits(timeline: Timeline) -> Iterator[Columns]:
    before = 0
    for process in timeline.processes:
        places = Places(process, relate(process))
        for at, rows in _pieces(process, process.waits):
            yield {
                **_interval(process, rows),
                "gil": rows["gil"],
                "timeouts": rows["timeouts"],
                "hold": np.where(rows["hold"] >= 0, rows["hold"] + before, -1),
                "partial": _flagged(rows, _PARTIAL),
                "site": Texts(places.site(places.wait_stack[at]), places.texts),
                **_culprits(process, places, at),
                "own_line": Texts(places.own_line(places.wait_stack[at]), places.texts),
                "culprit_own_line": Texts(places.own_line(places.culprit_stack[at]), places.texts),
                "culprit_known_by": Texts(places.culprit_source[at], _KNOWN_BY),
            }
        before += len(process.holds)


def _culprits(process: Process, places: Places, at: Ints) -> Columns:
    """Who held the GIL during each wait: the culprit, where it stood and its share, and the next two."""
    names = [*labels(process), ""]
    found = places.culprits
    # Nobody is -1, the last of the names.
    first, second, third = (Texts(found.thread[at, place] % len(names), names) for place in range(3))
    return {
        "culprit": first,
        "culprit_site": Texts(places.site(places.culprit_stack[at]), places.texts),
        "culprit_ns": found.ns[at, 0],
        "culprit_share": np.round(places.share(at), 4),
        "second_culprit": second,
        "second_culprit_ns": found.ns[at, 1],
        "third_culprit": third,
        "third_culprit_ns": found.ns[at, 2],
    }


def _switch_requests(timeline: Timeline) -> Iterator[Columns]:
    for process in timeline.processes:
        for _, rows in _pieces(process, process.switch_requests):
            yield {**_whose(process, rows), "time": rows["time"], "gil": rows["gil"]}


def _states(timeline: Timeline) -> Iterator[Columns]:
    names = [state.label for state in State]
    for process in timeline.processes:
        for _, rows in _pieces(process, process.states):
            yield {**_interval(process, rows), "state": Texts(rows["state"], names)}


def _runs(timeline: Timeline) -> Iterator[Columns]:
    for process in timeline.processes:
        for _, rows in _pieces(process, process.runs):
            yield {**_interval(process, rows), "core": rows["core"], "preempted": rows["preempted"] != 0}


#: The tables by name. Each yields at least one piece for each process, so that columns and types are always known.
TABLES: dict[str, Callable[[Timeline], Iterator[Columns]]] = {
    "processes": _processes,
    "threads": _threads,
    "holds": _holds,
    "waits": _waits,
    "switch_requests": _switch_requests,
    "states": _states,
    "runs": _runs,
}


def _pieces(process: Process, rows: Array) -> Iterator[tuple[Ints, Array]]:
    """The rows of the chosen threads, with their numbers."""
    chosen = np.flatnonzero(process.of_chosen(rows))
    for at in range(0, max(len(chosen), 1), PIECE):
        piece = chosen[at : at + PIECE]
        yield piece, rows[piece]


def _whose(process: Process, rows: Array) -> Columns:
    tids = _numbers([thread.tid for thread in process.threads])
    return {
        "pid": np.full(len(rows), process.pid),
        "tid": tids[rows["thread"]],
        "thread": Texts(rows["thread"], labels(process)),
    }


def _interval(process: Process, rows: Array) -> Columns:
    own = {"start": rows["start"], "end": rows["end"], "duration": rows["end"] - rows["start"]}
    return {**_whose(process, rows), **own}


def _flagged(rows: Array, flag: Flag) -> npt.NDArray[np.bool_]:
    marked: npt.NDArray[np.bool_] = (rows["flags"] & np.uint8(flag)) != 0
    return marked


def _numbers(values: list[int]) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def _distinct(texts: list[str]) -> Texts:
    place: dict[str, int] = {}
    index = [place.setdefault(text, len(place)) for text in texts]
    return Texts(np.array(index, np.int64), list(place))

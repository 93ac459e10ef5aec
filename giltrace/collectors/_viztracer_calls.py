"""viztracer's dump of calls to spans, a million a second.

The dump is JSON without any freedom in it, one object after the other, so the numbers are where they must be:
`{"pid":1,"tid":2,"ts":3.000,"ph":"X","cat":"fee","dur":4.000,"name":"f (file:5)"},`
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from giltrace.recording.events import SPAN

if TYPE_CHECKING:
    Rows = npt.NDArray[np.void]
    Ints = npt.NDArray[np.int64]
    Text = npt.NDArray[np.uint8]

#: Times within this distance are one instant: viztracer cuts starts and durations to whole ns one by one.
_ROUNDING_NS = 3

_OWN_MODULE = b"/giltrace_viztracer.py:"
#: What `giltrace_viztracer.py` puts among the calls; json, if it is the program's own, has more to say of it.
_LOOKOUT = re.compile(rb'\{"giltrace": 0[^}]*\},?')
_LAST_CALL = re.compile(rb'_still_traced \([^"]*/giltrace_viztracer\.py:')

# What stands between the numbers; a quote inside a name is escaped, so no name can hold this.
_AFTER_TIME = re.compile(rb',"ph":"[XB]","cat":"fee","dur":')
_LEN_AFTER_TIME = len(b',"ph":"X","cat":"fee","dur":')


def parse(data: bytes, names: dict[bytes, int], first: int, last: int) -> Rows:
    """Turn viztracer's JSON into rows of dtype `SPAN`, adding their names, still escaped, to `names`.

    Only the calls that began from `first` until before `last` (ns) count: the others are giltrace's own.
    """
    data = _LOOKOUT.sub(b"", data)
    at = np.array([match.start() for match in _AFTER_TIME.finditer(data)], np.int64)
    rows = np.zeros(len(at), SPAN)
    if not len(at):
        return rows
    text = np.frombuffer(data, np.uint8)
    starts, before_start = _number_before(text, at)
    tids, before_tid = _number_before(text, before_start - len(b',"ts":') + 1)
    durations, after_duration = _number_from(text, at + _LEN_AFTER_TIME)
    _, before_pid = _number_before(text, before_tid[:1] - len(b',"tid":') + 1)
    # From the end of a name to the thread id of the next call it is always as far: the process id stays the same.
    gap = int(before_tid[0] - before_pid[0]) + len(b'"},{"pid":') - 1
    name_ends = np.append(before_tid[1:] - gap, data.rindex(b'"}', 0, data.rindex(b"]")))
    rows["tid"], rows["start"], rows["end"] = tids, starts, starts + durations
    rows["name"], own = _names(data, after_duration + len(b',"name":"'), name_ends, names)
    rows = rows[~own & (rows["start"] >= first) & (rows["start"] < last)]
    rows = rows[np.lexsort((-rows["end"], rows["start"], rows["tid"]))]
    for part in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows["tid"])) + 1):
        if len(part):
            _nest(rows[part[0] : part[-1] + 1])
    return rows


def stopped_early(data: bytes) -> bool:
    """Whether viztracer's JSON lacks the call that giltrace makes last: then tracing had stopped by itself before."""
    return _LAST_CALL.search(data) is None


def calls_since(data: bytes) -> int:
    """How many calls viztracer's JSON has since `giltrace_viztracer.py` last counted them."""
    return data.count(b'"cat":"fee"', max(0, data.rfind(b'{"giltrace": 0')))


def cut(rows: Rows, stopped: dict[int, int]) -> None:
    """End the calls of each thread where its tracing was `stopped` (ns); that of thread 0 is where all others' was."""
    everywhere = stopped.get(0, np.iinfo(np.int64).max)
    for tid in np.unique(rows["tid"]).tolist():
        of_thread = rows["tid"] == tid
        rows["end"][of_thread] = np.minimum(rows["end"][of_thread], stopped.get(tid, everywhere))
    rows["end"] = np.maximum(rows["start"], rows["end"])  # one that was being begun


def _names(data: bytes, begins: Ints, ends: Ints, names: dict[bytes, int]) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Return the index of the name of each call, and whether it is one of giltrace's own functions."""
    indices = np.array(
        [
            names.setdefault(data[begin:end], len(names))
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        ],
        np.int64,
    )
    own = np.array([_OWN_MODULE in name for name in names], np.bool_)
    return indices, own[indices]


def _number_before(text: Text, end: Ints) -> tuple[Ints, Ints]:
    """Return the numbers that end before each place, their decimal points ignored, and where they are preceded."""
    value, scale, at = np.zeros(len(end), np.int64), np.ones(len(end), np.int64), end - 1
    while True:
        digit = text[at].astype(np.int64) - ord("0")
        is_digit, is_point = (digit >= 0) & (digit <= 9), text[at] == ord(".")
        if not (is_digit | is_point).any():
            return value, at
        value += np.where(is_digit, digit, 0) * scale
        scale *= np.where(is_digit, 10, 1)
        at = at - (is_digit | is_point)


def _number_from(text: Text, begin: Ints) -> tuple[Ints, Ints]:
    """Return the numbers that begin at each place, their decimal points ignored, and where they have ended."""
    value, at = np.zeros(len(begin), np.int64), begin
    while True:
        digit = text[at].astype(np.int64) - ord("0")
        is_digit, is_point = (digit >= 0) & (digit <= 9), text[at] == ord(".")
        if not (is_digit | is_point).any():
            return value, at
        value = np.where(is_digit, value * 10 + digit, value)
        at = at + (is_digit | is_point)


def _nest(rows: Rows) -> None:
    """Set the depth of one thread's `rows`, sorted by (start, -end), and undo what rounding did to their nesting."""
    starts, ends = rows["start"], rows["end"].copy()
    # In half ns, so that a call of no length still ends after it has begun.
    closed = np.maximum(2 * starts + 1, 2 * (ends - _ROUNDING_NS))
    depths = np.arange(len(rows)) - np.searchsorted(np.sort(closed), 2 * starts, "right")
    order = np.argsort(depths, kind="stable")
    levels = np.split(order, np.flatnonzero(np.diff(depths[order])) + 1)
    outer = levels[0]
    for depth, level in enumerate(levels):
        limit = np.append(starts[level[1:]], np.iinfo(np.int64).max)
        ends[level] = np.minimum(ends[level], limit)  # a neighbour begins
        if depth:
            parent = outer[np.searchsorted(outer, level) - 1]
            ends[level] = np.minimum(ends[level], ends[parent])
        outer = level
    rows["end"], rows["depth"] = ends, np.minimum(depths, 0xFFFF)

"""What a sampler saw of threads: the user's innermost line at each instant at which what it saw changed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from giltrace.analysis.measure.own_line import is_under
from giltrace.analysis.site import Frame
from giltrace.recording.events import Spans
from giltrace.recording.libraries import Libraries
from giltrace.recording.order import distinct
from giltrace.timeline.axis import Ints, LifeAxis
from giltrace.timeline.model import Process
from giltrace.timeline.once import once

_FRAME = re.compile(r"(?P<function>.*) \((?P<file>.*):(?P<line>\d+)\)", re.DOTALL)

#: This share of what is seen is new after the time from one look to the next; the rest is seen for longer.
_USUAL = 0.25
#: No sampler looks more often (ns).
_FINEST = 1_000_000
#: So many looks at the same are told apart.
_MOST = 1_000
#: ... and so many in all, beside the edges of spans.
_MOST_IN_ALL = 1 << 20
#: At such an instant nobody looked.
_UNSEEN = -2


class Sampled(NamedTuple):
    """One row per instant, sorted by `place` on the axis of all threads' lives (`LifeAxis`): `line` is the number of
    the user's innermost line (`own_lines`), -1 where none was on the stack. Times are right within `error_ns`.
    """

    place: Ints
    line: Ints
    error_ns: int


def frame_of(name: str) -> Frame | None:
    """The function, file and line that a span of a sampler is called by; None if it is called otherwise."""
    found = _FRAME.fullmatch(name)
    return (found["function"], found["file"], int(found["line"])) if found is not None else None


def own_lines(process: Process) -> tuple[Frame, ...]:
    """The user's lines that the sampler saw anywhere."""
    return _numbered(process)[0]


@once
def sampled_lines(process: Process) -> Sampled:
    """Where the user's code was, by the first sampler that looked at the process."""
    spans = _spans(process)
    none: Ints = np.empty(0, np.int64)
    if spans is None:
        return Sampled(none, none, 0)
    thread = _threads(process, spans.spans["tid"])
    rows, thread = spans.spans[thread >= 0], thread[thread >= 0]
    axis = LifeAxis.of_threads(process.threads)
    start, end = (axis.place(thread, rows[edge]) for edge in ("start", "end"))
    instant = _instants(np.concatenate([start, end]))
    line: Ints = np.full(len(instant), _UNSEEN, np.int64)
    number = _numbered(process)[1][rows["name"]]
    # From the outermost on: who is called comes later, and stays.
    for depth in np.unique(rows["depth"][(number >= 0) | (rows["depth"] == 0)]).tolist():
        mine = np.flatnonzero(rows["depth"] == depth)
        mine = mine[np.argsort(start[mine], kind="stable")]
        at = np.searchsorted(start[mine], instant, "right") - 1
        found = number[mine[at]]
        told = (at >= 0) & (end[mine[at]] > instant) & ((found >= 0) | (depth == 0))
        line[told] = found[told]
    seen = line != _UNSEEN
    return Sampled(instant[seen], line[seen], spans.clock_error_ns)


def _instants(edges: Ints) -> Ints:
    """When spans begin and end, which is when a sampler looked and saw something new; and, where it saw the same for
    long, as many more as if that was seen anew each time.
    """
    edges = distinct(edges)
    gaps = np.diff(edges)
    step = max(int(np.quantile(gaps, _USUAL)), int(gaps.sum()) // _MOST_IN_ALL, _FINEST) if len(gaps) else _FINEST
    more = np.minimum(gaps // step, _MOST)
    of = np.repeat(np.arange(len(gaps)), more)
    number = np.arange(len(of)) - np.repeat(np.cumsum(more) - more, more)
    return distinct(np.concatenate([edges, edges[of] + number * step]))


def _threads(process: Process, tids: Ints) -> Ints:
    """The number of the thread with each of these ids; of several the last one, -1 if there is none."""
    number = {thread.tid: at for at, thread in enumerate(process.threads)}
    used, of_row = np.unique(tids, return_inverse=True)
    found: Ints = np.array([number.get(tid, -1) for tid in used.tolist()], np.int64)[of_row.ravel()]
    return found


def _spans(process: Process) -> Spans | None:
    return next((one for one in process.spans if one.sampled and len(one.spans)), None)


@once
def _numbered(process: Process) -> tuple[tuple[Frame, ...], Ints]:
    """The lines that are the user's, and for each name of spans the number of its line, -1 for those of libraries."""
    spans = _spans(process)
    frames = [frame_of(name) for name in spans.names] if spans is not None else []
    own = _own(process, [frame for frame in frames if frame is not None])
    lines: dict[Frame, int] = {}
    of_name = [lines.setdefault(frame, len(lines)) if frame in own else -1 for frame in frames if frame is not None]
    number: Ints = np.full(len(frames), -1, np.int64)
    number[[at for at, frame in enumerate(frames) if frame is not None]] = of_name
    return tuple(lines), number


def _own(process: Process, frames: Sequence[Frame]) -> set[Frame]:
    """Which of these are in the user's code."""
    said = process.stacks.table.own if process.stacks is not None else ()
    if said:
        return {frame for frame in frames if is_under(frame[1], said)}
    libraries = Libraries()
    for function, file, _ in frames:
        libraries.learn(function, file)
    return {frame for frame in frames if not libraries.has(frame[1])}

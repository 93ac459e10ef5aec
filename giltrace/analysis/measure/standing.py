"""Where threads stood at an instant: by a sampler that looked then, or by where they gave the GIL up before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from giltrace.analysis.measure.intervals import last_released
from giltrace.analysis.measure.sampled import frame_of
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.site import frame_text
from giltrace.recording.libraries import Libraries
from giltrace.timeline.axis import LifeAxis, union
from giltrace.timeline.model import Process

#: A function, its file and the line that it was at.
_Sampled = tuple[str, str, int]


class Stood(NamedTuple):
    """A thread (by number), the line `where` it stood, and its frames, innermost first, if a sampler looked then."""

    thread: int
    where: str
    frames: tuple[_Sampled, ...]


def where_sampled(process: Process, thread: int, time: int) -> str:
    """The innermost line of the user's on the stack that was sampled of a thread (by number) at `time`, in words.

    The innermost of all where none is the user's; empty where no sampler looked.
    """
    return _own_line(_sampled(process, thread, time))


def where_idle(process: Process, instant: int) -> list[Stood]:
    """The threads that lived at an `instant` at which nobody had a GIL, and where each stood then, if that is known."""
    living = np.array([at for at, one in enumerate(process.threads) if one.start <= instant <= one.end], np.int64)
    stack = np.full(len(living), -1, np.int64)
    if process.stacks is not None and len(process.holds):
        axis = LifeAxis.of_threads(process.threads)
        hold = last_released(process, axis, living, np.full(len(living), instant, np.int64))
        stack = np.where(hold >= 0, process.stacks.hold_end[hold], -1)
    released = Sites(process).classify(living, stack)
    found = []
    for thread, row in zip(living.tolist(), released.of_row.tolist(), strict=True):
        site, frames = released.sites[row], _sampled(process, thread, instant)
        where = _own_line(frames) or (site.where if site.function else "")
        if where:
            found.append(Stood(thread, where, frames))
    return found


def _sampled(process: Process, thread: int, time: int) -> tuple[_Sampled, ...]:
    """The frames that were sampled of a thread at `time`, innermost first; none where no sampler looked."""
    for spans in process.spans:
        if not spans.sampled:
            continue
        rows = spans.spans[spans.spans["tid"] == process.threads[thread].tid]
        rows = rows[(rows["start"] <= time) & (rows["end"] >= time)]
        names = [spans.names[at] for at in rows["name"][np.argsort(-rows["depth"].astype(np.int64))].tolist()]
        frames = tuple(found for name in names if (found := frame_of(name)) is not None)
        if frames:
            return frames
    return ()


def _own_line(frames: Sequence[_Sampled]) -> str:
    """The innermost of these frames that is the user's, or of all where none is, in words; empty for none."""
    libraries = Libraries()
    for function, file, _ in frames:
        libraries.learn(function, file)
    own = [frame for frame in frames if not libraries.has(frame[1])]
    if not frames:
        return ""
    function, file, line = (own or frames)[0]
    return frame_text((function, file.rpartition("/")[2], line))


def longest_idle(process: Process) -> int:
    """The middle of the longest time in which nobody had a GIL."""
    none = np.empty(0, np.int64)
    start, end = union(process.holds["start"], process.holds["end"]) if len(process.holds) else (none, none)
    edges = np.concatenate([[process.start], np.stack([start, end], axis=1).ravel(), [process.end]])
    free = np.diff(edges)[::2]
    at = 2 * int(free.argmax())
    return int(edges[at] + edges[at + 1]) // 2

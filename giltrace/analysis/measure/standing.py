"""Where threads stood at an instant: by a sampler that looked then, or by where they gave the GIL up before."""

from __future__ import annotations

import numpy as np

from giltrace.analysis.measure.intervals import last_released
from giltrace.analysis.measure.sampled import frame_of
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.site import frame_text
from giltrace.recording.libraries import Libraries
from giltrace.timeline.axis import LifeAxis, union
from giltrace.timeline.model import Process


def where_sampled(process: Process, thread: int, time: int) -> str:
    """The innermost line of the user's on the stack that was sampled of a thread (by number) at `time`, in words.

    The innermost of all where none is the user's; empty where no sampler looked.
    """
    libraries = Libraries()
    for spans in process.spans:
        if not spans.sampled:
            continue
        rows = spans.spans[spans.spans["tid"] == process.threads[thread].tid]
        rows = rows[(rows["start"] <= time) & (rows["end"] >= time)]
        names = [spans.names[at] for at in rows["name"][np.argsort(-rows["depth"].astype(np.int64))].tolist()]
        frames = [found for name in names if (found := frame_of(name)) is not None]
        for function, file, _ in frames:
            libraries.learn(function, file)
        own = [frame for frame in frames if not libraries.has(frame[1])]
        if frames:
            function, file, line = (own or frames)[0]
            return frame_text((function, file.rpartition("/")[2], line))
    return ""


def where_idle(process: Process) -> list[tuple[int, str]]:
    """The threads (by number) that lived in the longest time in which nobody had a GIL, and where each stood then."""
    instant = _longest_idle(process)
    living = np.array([at for at, one in enumerate(process.threads) if one.start <= instant <= one.end], np.int64)
    stack = np.full(len(living), -1, np.int64)
    if process.stacks is not None and len(process.holds):
        axis = LifeAxis.of_threads(process.threads)
        hold = last_released(process, axis, living, np.full(len(living), instant, np.int64))
        stack = np.where(hold >= 0, process.stacks.hold_end[hold], -1)
    released = Sites(process).classify(living, stack)
    found = []
    for thread, row in zip(living.tolist(), released.of_row.tolist(), strict=True):
        site = released.sites[row]
        where = where_sampled(process, thread, instant) or (site.where if site.function else "")
        if where:
            found.append((thread, where))
    return found


def _longest_idle(process: Process) -> int:
    """The middle of the longest time in which nobody had a GIL."""
    none = np.empty(0, np.int64)
    start, end = union(process.holds["start"], process.holds["end"]) if len(process.holds) else (none, none)
    edges = np.concatenate([[process.start], np.stack([start, end], axis=1).ravel(), [process.end]])
    free = np.diff(edges)[::2]
    at = 2 * int(free.argmax())
    return int(edges[at] + edges[at + 1]) // 2

"""Folded stacks, a line each: ``thread;outermost frame;...;innermost frame nanoseconds``, for flame graphs."""

from __future__ import annotations

import re
from typing import BinaryIO

from giltrace.analysis.measure.stack_totals import StackTotals, culprits, frames, holding, waiting, without
from giltrace.analysis.measure.usage import lengths
from giltrace.analysis.site import Frame, frame_text
from giltrace.errors import UsageError
from giltrace.exporters._names import labels
from giltrace.timeline.model import Process, Timeline

#: The line for waits while nobody held the GIL.
WAKE_UP = "(nobody held the GIL: wake-up)"

_NOTHING = {
    "waiting": ("no thread waited for the GIL in this recording", "see --what holding for what is in it"),
    "holding": ("no thread held the GIL in this recording", "see `giltrace report` for what is in it"),
    "without": ("no thread was without the GIL in this recording", "see `giltrace report` for what is in it"),
}

_SPACE = re.compile(r"\s+")


def stream(timeline: Timeline, file: BinaryIO, what: str = "waiting", by: str = "victim") -> None:
    """Write the time that threads spent `what`, in nanoseconds, by the stack of the thread that did.

    With `by` "culprit", waiting is told by the stacks of the threads that held the GIL meanwhile. Without the GIL, the
    innermost frame is what the thread did. Raises `UsageError` if no time was spent so.
    """
    if what != "waiting" and by == "culprit":
        raise UsageError("only waiting has culprits", "leave out --by, or use --what waiting")
    told = False
    for process in timeline.processes:
        names = _threads(process, several=len(timeline.processes) > 1)
        for doing, totals in _totals(timeline, process, what, by):
            for thread, stack, ns in zip(*(column.tolist() for column in totals), strict=True):
                words = [
                    names[thread],
                    *(_words(frame) for frame in frames(process, stack)),
                    *([doing] if doing else []),
                ]
                file.write(f"{';'.join(words)} {ns}\n".encode(errors="replace"))
                told = True
            if by == "culprit":
                nobody = int(lengths(process.waits).sum()) - int(totals.ns.sum())
                if nobody > 0:
                    file.write(f"{WAKE_UP} {nobody}\n".encode())
                    told = True
    if not told:
        raise UsageError(*_NOTHING[what])


def _totals(timeline: Timeline, process: Process, what: str, by: str) -> list[tuple[str, StackTotals]]:
    """The time by stack, and what was done there where that is not said by `what`."""
    if what == "without":
        return [(f"({name})", totals) for name, totals in without(process, timeline.began_ns)]
    return [("", (culprits if by == "culprit" else waiting if what == "waiting" else holding)(process))]


def _threads(process: Process, *, several: bool) -> list[str]:
    return [_safe(f"{label} (pid {process.pid})" if several else label) for label in labels(process)]


def _words(frame: Frame) -> str:
    return _safe(frame_text(frame))


def _safe(text: str) -> str:
    """A semicolon would end the frame, a line break the stack."""
    return _SPACE.sub(" ", text.replace(";", ":")) or "?"

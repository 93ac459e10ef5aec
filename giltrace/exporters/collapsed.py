"""Folded stacks, a line each: ``thread;outermost frame;...;innermost frame nanoseconds``, for flame graphs."""

from __future__ import annotations

import re
from typing import BinaryIO

from giltrace.analysis.measure.stack_totals import culprits, frames, holding, waiting
from giltrace.analysis.measure.usage import lengths
from giltrace.analysis.site import Frame, frame_text
from giltrace.errors import UsageError
from giltrace.exporters._names import labels
from giltrace.timeline.model import Process, Timeline

#: The line for waits while nobody held the GIL.
WAKE_UP = "(nobody held the GIL: wake-up)"

_SPACE = re.compile(r"\s+")


def stream(timeline: Timeline, file: BinaryIO, what: str = "waiting", by: str = "victim") -> None:
    """Write the time that threads spent `what`, in nanoseconds, by the stack of the thread that did.

    With `by` "culprit", waiting is told by the stacks of the threads that held the GIL meanwhile. Raises `UsageError`
    if no time was spent so.
    """
    if what == "holding" and by == "culprit":
        raise UsageError("only waiting has culprits", "leave out --by, or use --what waiting")
    told = False
    for process in timeline.processes:
        totals = (culprits if by == "culprit" else waiting if what == "waiting" else holding)(process)
        names = _threads(process, several=len(timeline.processes) > 1)
        for thread, stack, ns in zip(*(column.tolist() for column in totals), strict=True):
            words = [names[thread], *(_words(frame) for frame in frames(process, stack))]
            file.write(f"{';'.join(words)} {ns}\n".encode(errors="replace"))
            told = True
        if by == "culprit":
            nobody = int(lengths(process.waits).sum()) - int(totals.ns.sum())
            if nobody > 0:
                file.write(f"{WAKE_UP} {nobody}\n".encode())
                told = True
    if not told:
        doing, instead = ("waited for", "--what holding") if what == "waiting" else ("held", "`giltrace report`")
        raise UsageError(f"no thread {doing} the GIL in this recording", f"see {instead} for what is in it")


def _threads(process: Process, *, several: bool) -> list[str]:
    return [_safe(f"{label} (pid {process.pid})" if several else label) for label in labels(process)]


def _words(frame: Frame) -> str:
    return _safe(frame_text(frame))


def _safe(text: str) -> str:
    """A semicolon would end the frame, a line break the stack."""
    return _SPACE.sub(" ", text.replace(";", ":")) or "?"

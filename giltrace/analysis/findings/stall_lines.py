"""Which line of a stack is told of a thread that took too long: the user's, as far as its event loop ran it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from giltrace.analysis.measure.loops import own_frames, selector_of
from giltrace.analysis.site import frame_text
from giltrace.recording.libraries import Libraries
from giltrace.timeline.collections import FILE as COLLECTOR

#: Innermost first, each (function, file, line).
Frames = Sequence[tuple[str, str, int]]

_IMPORTING = "<frozen importlib"


class Lines:
    """Tells lines, and learns from what it is asked for which files are libraries'."""

    def __init__(self) -> None:
        self._libraries = Libraries()

    def innermost(self, frames: Frames) -> str:
        """The innermost line of the user's, as far as a loop's frames do not come first; else of a library's."""
        mine = self._users(frames)
        return _text(mine[0]) if mine else ""

    def outermost(self, frames: Frames) -> str:
        """The outermost such line: of a task, its coroutine's."""
        mine = self._users(frames)
        return _text(mine[-1]) if mine else ""

    def _users(self, frames: Frames) -> Frames:
        mine = frames[: own_frames([frame[:2] for frame in frames])] or frames
        mine = [frame for frame in mine if frame[1] != COLLECTOR]
        for function, file, _ in mine:
            self._libraries.learn(function, file)
        return [frame for frame in mine if not self._libraries.has(frame[1])] or mine


def is_idle(frames: Frames) -> bool:
    """Whether a stack is one of an event loop that waits."""
    return bool(selector_of([frame[:2] for frame in frames]))


def import_line(frames: Frames) -> str:
    """The line that imports, the outermost of several; empty where none does. What runs the loop is not looked at."""
    mine = frames[: own_frames([frame[:2] for frame in frames])]
    found = ""
    for inner, frame in pairwise(mine):
        if inner[1].startswith(_IMPORTING) and not frame[1].startswith(_IMPORTING):
            found = _text(frame)
    return found


def _text(frame: tuple[str, str, int]) -> str:
    return frame_text((frame[0], frame[1].rpartition("/")[2], frame[2]))

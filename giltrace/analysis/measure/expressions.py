"""What was called at a line: its expression, out of the source, where that is here and has not changed since.

From Python 3.11 on code tells the columns of each expression; before, and where one spans lines, the line is told.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

from giltrace.analysis.measure.own_line import innermost_own
from giltrace.errors import RecordingError
from giltrace.recording.door import Source
from giltrace.recording.events import StackTable
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process

#: Larger files are no source.
LARGEST = 4 << 20
#: Longer ones are cut.
LONGEST = 60
#: What begins a function calls nothing: its first instruction has no columns.
_BEGINS = re.compile(rb"\s*(?:async\s+)?def\s")


class Expressions:
    """The expressions of one process's stacks; `before` is when it was recorded, in ns since 1970."""

    def __init__(self, process: Process, before: int) -> None:
        self._stacks = process.stacks
        self.before = before
        self._own: Ints | None = None

    def at(self, stack: int) -> str:
        """The expression at the own line of a stack, or at its innermost frame; empty where it cannot be told."""
        if self._stacks is None or stack < 0:
            return ""
        table = self._stacks.table
        if self._own is None:
            self._own = innermost_own(table)
        place = int(self._own[stack])
        return self.innermost(stack) if place < 0 else expression(table, place, self.before)

    def innermost(self, stack: int) -> str:
        """The expression at the innermost frame of a stack, whose ever code that is; empty where it cannot be told."""
        if self._stacks is None or stack < 0:
            return ""
        table = self._stacks.table
        place = int(table.offsets[stack])
        return expression(table, place, self.before) if place < int(table.offsets[stack + 1]) else ""

    def line(self, file: str, line: int) -> str:
        """What the source says at a line; empty where that cannot be told."""
        source = source_lines(file, self.before)
        return source[line - 1].decode("utf-8", "replace").strip() if 0 < line <= len(source) else ""

    def file(self, stack: int) -> str:
        """The file of the innermost frame of a stack; empty where it is not known."""
        if self._stacks is None or stack < 0:
            return ""
        table = self._stacks.table
        inner = table.frames["file"][int(table.offsets[stack]) : int(table.offsets[stack + 1])][:1].tolist()
        return table.strings[inner[0]] if inner else ""


def expression(table: StackTable, place: int, before: int) -> str:
    """The expression of the frame at `place` in ``table.frames``; empty where it cannot be told.

    `before` is when it was recorded, in ns since 1970.
    """
    frame = table.frames[place]
    source = source_lines(table.strings[frame["file"]], before)
    if not 0 < frame["line"] <= len(source):
        return ""
    line = source[int(frame["line"]) - 1]
    begin, end = int(frame["begin"]), int(frame["end"])
    known = begin < end <= len(line)
    if not known and _BEGINS.match(line):
        return ""
    text = line[begin:end] if known else line
    told = " ".join(text.decode("utf-8", "replace").split())
    return told if len(told) <= LONGEST else f"{told[: LONGEST - 3]}..."


@lru_cache(maxsize=64)
def source_lines(file: str, before: int) -> list[bytes]:
    """The lines of a source file that has not been written to since; none of any other file.

    A recording may come from anybody, and name any file.
    """
    if not file.startswith("/") or not file.endswith(".py"):
        return []
    try:
        with Source(Path(file)) as source:
            if source.size > LARGEST or source.written_ns > before:
                return []
            return source.read(0, source.size).split(b"\n")
    except (OSError, ValueError, RecordingError):
        return []

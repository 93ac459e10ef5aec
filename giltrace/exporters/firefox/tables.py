"""The tables that all threads of a Firefox profile share: strings, functions, frames, and stacks as a tree."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.stack_totals import frames
from giltrace.analysis.site import Frame
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process

#: Categories of time and of markers, by number; the viewer needs one that is grey, for what has none.
OTHER, HOLDING, WAITING, BLOCKED = range(4)
CATEGORIES = [
    {"name": "Other", "color": "grey", "subcategories": ["Other"]},
    {"name": "Holding the GIL", "color": "green", "subcategories": ["Other"]},
    {"name": "Waiting for the GIL", "color": "red", "subcategories": ["Other"]},
    {"name": "Blocked by a lock", "color": "purple", "subcategories": ["Other"]},
]
#: The innermost frame that each sample gets, for the viewer takes a sample's category from it.
_LEAVES: dict[int, Frame] = {HOLDING: ("[holds the GIL]", "", 0), WAITING: ("[waits for the GIL]", "", 0)}

_Key = tuple[Any, ...]


class SharedTables:
    """Strings, frames and stacks, each once, numbered in the order they are first met."""

    def __init__(self) -> None:
        self._strings: dict[str, int] = {}
        self._sources: dict[int, int] = {}
        self._functions: dict[_Key, int] = {}
        self._frames: dict[_Key, int] = {}
        self._stacks: dict[_Key, int] = {}

    def strings(self, texts: tuple[str, ...] | list[str]) -> Ints:
        """Intern texts; their numbers."""
        return np.array([self._string(text) for text in texts], np.int64)

    def stacks(self, process: Process, stack: npt.NDArray[Any], category: int) -> tuple[Ints, Ints]:
        """Intern stacks (-1: none known) of a process.

        Returns, per row, the stack's number (-1 for none), and that of the same stack in time of this `category`.
        """
        used, at = np.unique(stack, return_inverse=True)
        bare = [self._python(process, number) for number in used.tolist()]
        leaf = self._frame(_LEAVES[category], category)
        timed = [self._stacks.setdefault((above, leaf), len(self._stacks)) for above in bare]
        known = [-1 if number is None else number for number in bare]
        at = at.ravel()
        return np.array(known, np.int64)[at], np.array(timed, np.int64)[at]

    def known_stacks(self, process: Process, stack: npt.NDArray[Any]) -> Ints:
        """Intern stacks (-1: none known) that no time is told of; their numbers, -1 for none."""
        used, at = np.unique(stack, return_inverse=True)
        bare = (self._python(process, number) for number in used.tolist())
        return np.array([-1 if number is None else number for number in bare], np.int64)[at.ravel()]

    def json(self) -> dict[str, Any]:
        """The tables as format version 60 has them."""
        frame_rows, function_rows, stack_rows = list(self._frames), list(self._functions), list(self._stacks)
        count = len(frame_rows)
        categories = [category for _, _, category in frame_rows]
        functions = len(function_rows)
        return {
            "stackTable": {
                "frame": [frame for _, frame in stack_rows],
                "prefix": [prefix for prefix, _ in stack_rows],
                "length": len(stack_rows),
            },
            "frameTable": {
                "address": [-1] * count,
                "inlineDepth": [0] * count,
                "category": [category or None for category in categories],
                "subcategory": [0 if category else None for category in categories],
                "func": [function for function, _, _ in frame_rows],
                "nativeSymbol": [None] * count,
                "innerWindowID": [None] * count,
                "line": [line if line > 0 else None for _, line, _ in frame_rows],
                "column": [None] * count,
                "length": count,
            },
            "funcTable": {
                "name": [name for name, _ in function_rows],
                "isJS": [False] * functions,
                "relevantForJS": [False] * functions,
                "resource": [-1] * functions,
                "source": [source for _, source in function_rows],
                "lineNumber": [None] * functions,
                "columnNumber": [None] * functions,
                "length": functions,
            },
            "resourceTable": {"lib": [], "name": [], "host": [], "type": [], "length": 0},
            "nativeSymbols": {"libIndex": [], "address": [], "name": [], "functionSize": [], "length": 0},
            "sources": {
                "id": [None] * len(self._sources),
                "filename": list(self._sources),
                "length": len(self._sources),
            },
            "stringArray": list(self._strings),
        }

    def _python(self, process: Process, stack: int) -> int | None:
        above: int | None = None
        for frame in frames(process, stack):
            above = self._stacks.setdefault((above, self._frame(frame, OTHER)), len(self._stacks))
        return above

    def _frame(self, frame: Frame, category: int) -> int:
        name, file, line = frame
        source = self._sources.setdefault(self._string(file), len(self._sources)) if file else None
        function = self._functions.setdefault((self._string(name), source), len(self._functions))
        return self._frames.setdefault((function, line, category), len(self._frames))

    def _string(self, text: str) -> int:
        return self._strings.setdefault(text, len(self._strings))

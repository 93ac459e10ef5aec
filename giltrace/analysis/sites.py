"""Where threads were: the innermost frames of stacks, and the stack that stands for a hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.own_code import own_stacks
from giltrace.analysis.results import Site
from giltrace.analysis.roles import roles
from giltrace.analysis.stretches import main_stacks
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process, Stacks


class Classes(NamedTuple):
    """Rows sorted into sites: the class of each row, and what each class is."""

    of_row: Ints
    sites: tuple[Site, ...]


class Sites:
    """The sites of one process, with or without stacks."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.roles = roles(process)
        names = sorted(set(self.roles))
        number = {name: i for i, name in enumerate(names)}
        self._names = names
        self._role_of = np.array([number[role] for role in self.roles], np.int64)
        self._top, self._tops = _tops(process.stacks)

    def classify(self, thread: npt.NDArray[Any], stack: npt.NDArray[Any]) -> Classes:
        """Sort rows by role, innermost frame, and whether that is giltrace's own; unused classes are left out.

        `stack` is -1 where none is known.
        """
        width = len(self._tops) + 1
        # Class 0 of each role is "no stack known".
        top = np.append(self._top, -1)[stack] + 1
        key = self._role_of[thread] * width + top
        used = np.zeros(len(self._names) * width + 1, np.bool_)
        used[key] = True
        keys = np.flatnonzero(used)
        dense = np.cumsum(used) - 1
        return Classes(dense[key].astype(np.int64), tuple(self._site(k // width, k % width) for k in keys.tolist()))

    def _site(self, role: int, top: int) -> Site:
        if top == 0:
            return Site(self._names[role])
        return Site(self._names[role], *self._tops[top - 1])

    def wait_stacks(self) -> npt.NDArray[np.int32]:
        """The stack of each wait, -1 if unknown."""
        known = self.process.stacks
        return known.wait if known is not None else np.full(len(self.process.waits), -1, np.int32)

    def hold_stacks(self) -> npt.NDArray[np.int32]:
        """The stack that stands for each hold, -1 if unknown; see `analysis.stretches`."""
        return main_stacks(self.process)

    def innermost(self, stack: npt.NDArray[Any]) -> tuple[Ints, Sequence[tuple[str, str, int]]]:
        """The innermost frame of each stack, as a place in the list that comes second; -1 where none is known.

        A frame is its function, file and line.
        """
        return np.append(self._top, -1)[stack], [top[:3] for top in self._tops]

    def stack(self, number: int) -> tuple[str, ...]:
        """A stack in words, innermost first: ``function (file:line)``; empty if unknown."""
        known = self.process.stacks
        if known is None or number < 0:
            return ()
        table = known.table
        frames = table.frames[table.offsets[number] : table.offsets[number + 1]]
        told = [f"{table.strings[f['function']]} ({table.strings[f['file']]}:{f['line']})" for f in frames]
        return (*told, "...") if table.truncated[number] else tuple(told)


def _tops(stacks: Stacks | None) -> tuple[Ints, list[tuple[str, str, int, bool]]]:
    """For each stack the number of its innermost frame (-1 if it has none), and these frames.

    The last field of a frame says whether it was called by giltrace's own code.
    """
    if stacks is None or len(stacks.table) == 0:
        return np.empty(0, np.int64), []
    table = stacks.table
    filled = table.offsets[1:] > table.offsets[:-1]
    top = np.full(len(table), -1, np.int64)
    innermost = table.frames[table.offsets[:-1][filled]]
    own = own_stacks(table)[filled]
    # Packed into one integer, as rows of several fields sort slowly.
    code = innermost["function"].astype(np.int64) * len(table.strings) + innermost["file"]
    _, code = np.unique(code, return_inverse=True)
    line = innermost["line"].astype(np.int64)
    packed = (code.ravel() * (int(line.max(initial=0)) + 2) + np.maximum(line, -1) + 1) * 2 + own
    _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    frames = zip(innermost[first], own[first].tolist(), strict=True)
    # Equal strings may have several numbers: what counts is what they say.
    named = [(table.strings[f["function"]], table.strings[f["file"]], int(f["line"]), mine) for f, mine in frames]
    number: dict[tuple[str, str, int, bool], int] = {}
    same = np.array([number.setdefault(name, len(number)) for name in named], np.int64)
    top[filled] = same[inverse.ravel()] if len(same) else -1
    return top, list(number)

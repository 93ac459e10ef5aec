"""Where threads were: the innermost frames of stacks, and the stack that stands for a hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.own_code import own_stacks
from giltrace.analysis.measure.own_line import innermost_own
from giltrace.analysis.measure.roles import roles
from giltrace.analysis.measure.sampled import own_lines
from giltrace.analysis.measure.stretches import main_stacks
from giltrace.analysis.site import Frame, Site, frame_text
from giltrace.recording.events import StackTable
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process, Stacks

#: One place is most of what a line of the user's led to if it is so much of that.
MOST = 0.5

_NO_FRAME: Frame = ("", "", 0)


class Top(NamedTuple):
    """What a `Site` tells of a stack: its leaf, whether giltrace itself runs that, and its own line, if it has one."""

    leaf: Frame
    giltrace: bool
    own: Frame

    @property
    def line(self) -> Frame:
        """What the stack is told by: its own line, or the leaf where it has none."""
        return self.leaf if self.own == _NO_FRAME else self.own

    def __str__(self) -> str:
        """The own line, and in brackets the leaf that it led to, if that is another one."""
        line, leaf = frame_text(self.line), frame_text(self.leaf)
        return line if line == leaf else f"{line} [{leaf}]"


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
        self._top, self._tops = _with_sampled(process, *_tops(process.stacks))
        # Of each stack, and at the end of none; small integers, for there may be millions of rows.
        self._width, self._top_of = len(self._tops) + 1, (np.append(self._top, -1) + 1).astype(np.int32)
        self._first_of = np.array([number[role] * self._width for role in self.roles], np.int32)

    def classify(self, thread: npt.NDArray[Any], stack: npt.NDArray[Any]) -> Classes:
        """Sort rows by role, leaf, own line, and whether giltrace itself runs that; unused classes are left out.

        `stack` is -1 where none is known.
        """
        numbers, of_row = self.numbered(thread, stack)
        return Classes(of_row.astype(np.int64), tuple(map(self.site, numbers)))

    def numbered(self, thread: npt.NDArray[Any], stack: npt.NDArray[Any]) -> tuple[list[int], npt.NDArray[np.int32]]:
        """The numbers of the sites that rows are sorted into, in order, as `site` takes them, and each row's place."""
        # Class 0 of each role is "no stack known".
        key = self._first_of[thread]
        key += self._top_of[stack]
        used = np.zeros(len(self._names) * self._width, np.bool_)
        used[key] = True
        return np.flatnonzero(used).tolist(), (np.cumsum(used, dtype=np.int32) - 1)[key]

    def site(self, number: int) -> Site:
        """The site of this number."""
        role, top = divmod(number, self._width)
        if top == 0:
            return Site(self._names[role])
        leaf, giltrace, own = self._tops[top - 1]
        return Site(self._names[role], *leaf, giltrace, *own)

    @staticmethod
    def functions(lines: Classes) -> Classes:
        """The same rows, sorted into the user's functions, or a library's where none of the user's is on the stack."""
        number: dict[Site, int] = {}
        of_class = [number.setdefault(function_of(site), len(number)) for site in lines.sites]
        return Classes(np.array(of_class, np.int64)[lines.of_row], tuple(number))

    @staticmethod
    def own_lines(lines: Classes) -> Classes:
        """The same rows, sorted into the user's lines, whatever these led to in libraries."""
        number: dict[Site, int] = {}
        of_class = [number.setdefault(own_line(site), len(number)) for site in lines.sites]
        return Classes(np.array(of_class, np.int64)[lines.of_row], tuple(number))

    def wait_stacks(self) -> npt.NDArray[np.int32]:
        """The stack of each wait, -1 if unknown."""
        known = self.process.stacks
        return known.wait if known is not None else np.full(len(self.process.waits), -1, np.int32)

    def hold_stacks(self) -> npt.NDArray[np.int32]:
        """The stack that stands for each hold, -1 if unknown; see `analysis.stretches`."""
        return main_stacks(self.process)

    def tops(self, stack: npt.NDArray[Any]) -> tuple[Ints, Sequence[Top]]:
        """What is told of each stack, as a place in the list that comes second; -1 where none is known."""
        return np.append(self._top, -1)[stack], self._tops

    def lines(self, stack: npt.NDArray[Any]) -> Ints:
        """A number for the line that each stack is told by, 0 where none is known."""
        number: dict[Frame, int] = {}
        of_top = [number.setdefault(top.line, len(number) + 1) for top in self._tops]
        return np.array([*of_top, 0], np.int64)[self.tops(stack)[0]]

    def stack(self, number: int) -> tuple[str, ...]:
        """A stack in words, innermost first: ``function (file:line)``; empty if unknown."""
        known = self.process.stacks
        if known is None or number < 0:
            return ()
        table = known.table
        frames = table.frames[table.offsets[number] : table.offsets[number + 1]]
        told = [frame_text((table.strings[f["function"]], table.strings[f["file"]], int(f["line"]))) for f in frames]
        return (*told, "...") if table.truncated[number] else tuple(told)


def function_of(site: Site) -> Site:
    """The function that the own line of `site` lies in, or the leaf where it has none; without a line."""
    function, file = (site.own_function, site.own_file) if site.own_function else (site.function, site.file)
    return Site(site.thread, function, file, 0, site.own)


def main_site(sites: Sequence[Site], ns: npt.NDArray[Any]) -> tuple[int, int]:
    """Of the function with most of `ns` (one for each of `sites`) the site with most of it, and the function's `ns`.

    A loop of two lines is one place to look at: no line elsewhere stands before it because each of them has less.
    """
    number: dict[Site, int] = {}
    function = np.array([number.setdefault(function_of(site), len(number)) for site in sites], np.int64)
    of_function = np.bincount(function, weights=ns)
    most = int(of_function.argmax())
    return int(np.where(function == most, ns, -1).argmax()), int(of_function[most])


def main_place(sites: Sequence[Site], ns: npt.NDArray[Any]) -> Site:
    """The same site; but the user's line alone where what that led to most is less than `MOST` of what it led to.

    A line that leads to many places in libraries is not to be called by one that is a small part of it.
    """
    most = sites[main_site(sites, ns)[0]]
    line = own_line(most)
    alike = np.array([own_line(site) == line for site in sites], np.bool_)
    same = np.array([site == most for site in sites], np.bool_)
    return most if ns[same].sum() >= MOST * ns[alike].sum() else line


def own_line(site: Site) -> Site:
    """The user's line that `site` was at, whatever it led to in libraries; the site where it has none."""
    if not site.own_function:
        return site
    own = (site.own_function, site.own_file, site.own_line)
    return Site(site.thread, *own, site.own, *own)


def _tops(stacks: Stacks | None) -> tuple[Ints, list[Top]]:
    """For each stack the number of what `Site` tells of it (-1 if it has no frame), and what these are."""
    if stacks is None or len(stacks.table) == 0:
        return np.empty(0, np.int64), []
    table = stacks.table
    filled = np.flatnonzero(table.offsets[1:] > table.offsets[:-1])
    leaf, frames = _numbered(table, table.offsets[filled])
    own, own_frames = _numbered(table, innermost_own(table)[filled])
    packed = (leaf * (len(own_frames) + 1) + own + 1) * 2 + own_stacks(table)[filled]
    kinds, inverse = np.unique(packed, return_inverse=True)
    tops = []
    for kind in kinds.tolist():
        at, place = divmod(kind // 2, len(own_frames) + 1)
        tops.append(Top(frames[at], bool(kind % 2), own_frames[place - 1] if place else _NO_FRAME))
    top = np.full(len(table), -1, np.int64)
    top[filled] = inverse.ravel()
    return top, tops


def _with_sampled(process: Process, top: Ints, tops: list[Top]) -> tuple[Ints, list[Top]]:
    """The same, followed by the lines that a sampler saw (`own_work`)."""
    if process.stacks is None:
        return top, tops
    number, found = {one: at for at, one in enumerate(tops)}, list(tops)
    places = list[int]()
    for line in (Top(line, False, line) for line in own_lines(process)):
        if line not in number:
            number[line] = len(found)
            found.append(line)
        places.append(number[line])
    return np.concatenate([top, np.array(places, np.int64)]), found


def _numbered(table: StackTable, place: Ints) -> tuple[Ints, list[Frame]]:
    """Number frames, given by their places (-1: none, and no number), by what they say; and what they say."""
    some = np.flatnonzero(place >= 0)
    chosen = table.frames[place[some]]
    # Packed into one integer, as rows of several fields sort slowly.
    code = chosen["function"].astype(np.int64) * len(table.strings) + chosen["file"]
    _, code = np.unique(code, return_inverse=True)
    line = chosen["line"].astype(np.int64)
    packed = code.ravel() * (int(line.max(initial=0)) + 2) + np.maximum(line, -1) + 1
    _, first, inverse = np.unique(packed, return_index=True, return_inverse=True)
    # Equal strings may have several numbers: what counts is what they say.
    named = [(table.strings[f["function"]], table.strings[f["file"]], int(f["line"])) for f in chosen[first]]
    number: dict[Frame, int] = {}
    same = np.array([number.setdefault(name, len(number)) for name in named], np.int64)
    result = np.full(len(place), -1, np.int64)
    result[some] = same[inverse.ravel()] if len(same) else -1
    return result, list(number)

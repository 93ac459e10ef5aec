"""A process image with the numbers by which tables that have the rows of all tell its rows from the others'."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from giltrace.exporters._names import labels
from giltrace.exporters._places import Places
from giltrace.exporters._relations import Relations, relate
from giltrace.timeline.axis import Bools, Ints
from giltrace.timeline.model import Array, Flag, Process, Timeline
from giltrace.timeline.windows import Window

#: Rows of one piece.
PIECE = 1 << 16


@dataclass(frozen=True)
class Image:
    """One process image: its `number`, and what those of its holds, blocks, threads and stacks begin with.

    If it is a `window` of one, `process` is that window's, and its own rows are told.

    What is found out about it is kept as long as this is: one at a time is enough.
    """

    timeline: Timeline
    process: Process
    number: int
    first_hold: int
    first_block: int
    first_thread: int
    first_stack: int
    window: Window | None = None

    @cached_property
    def relations(self) -> Relations:
        """What its holds, waits and switch requests have to do with each other."""
        return relate(self.process)

    @cached_property
    def places(self) -> Places:
        """Where its threads stood."""
        return Places(self.process, self.relations, self.timeline.began_ns)

    @cached_property
    def labels(self) -> list[str]:
        """What its threads are called."""
        return labels(self.process)

    @cached_property
    def tids(self) -> npt.NDArray[np.int64]:
        """The tid of each thread."""
        return np.array([thread.tid for thread in self.process.threads], np.int64)

    @cached_property
    def handed_on(self) -> Bools:
        """Whether another thread took the GIL next after each hold, as far as that is on record."""
        holds, following = self.process.holds, self.relations.following
        result = np.zeros(len(holds), np.bool_)
        before = np.flatnonzero(following >= 0)
        after = following[before]
        result[before] = (
            (holds["thread"][before] != holds["thread"][after])
            & (holds["flags"][before] & int(Flag.PARTIAL_END) == 0)
            & (holds["flags"][after] & int(Flag.PARTIAL_START) == 0)
        )
        return result

    def stack_ids(self, stack: npt.NDArray[np.int32]) -> Ints:
        """The numbers that its stacks have among those of all images; -1 where none is known."""
        wide = stack.astype(np.int64)
        return np.where(wide >= 0, wide + self.first_stack, -1)

    def own(self, rows: Array) -> slice:
        """Which of the rows, sorted by start or time, are told."""
        return slice(0, len(rows)) if self.window is None else self.window.own(rows)

    def pieces(self, rows: Array, own: slice | None = None) -> Iterator[tuple[Ints, Array]]:
        """The rows of the chosen threads, or what is `own` of them, with their numbers; one piece at least."""
        own = slice(0, len(rows)) if own is None else own
        for at in range(own.start, max(own.stop, own.start + 1), PIECE):
            piece = rows[at : min(at + PIECE, own.stop)]
            number = np.arange(at, at + len(piece))
            if self.process.chosen is not None:
                chosen = self.process.of_chosen(piece)
                number, piece = number[chosen], piece[chosen]
            yield number, piece


def images(timeline: Timeline, processes: Iterable[Process] | None = None) -> Iterator[Image]:
    """Number the images of a timeline, or `processes` in their place, which may be made one after the other."""
    hold = block = thread = stack = 0
    for number, process in enumerate(timeline.processes if processes is None else processes):
        yield Image(timeline, process, number, hold, block, thread, stack)
        hold += len(process.holds) if process.outlined is None else process.outlined.holds
        block += len(process.blocks)
        thread += len(process.threads)
        stack += len(process.stacks.table) if process.stacks is not None else 0

"""Who held the GIL and where threads stood, as every format tells it: of each hold, wait and switch request."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure import usage
from giltrace.analysis.measure.block_causes import block_causes
from giltrace.analysis.measure.culprits import Culprits, find_culprits
from giltrace.analysis.measure.expressions import Expressions
from giltrace.analysis.measure.native_code import functions_text, native_functions
from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.stretches import Source, Stretches, sourced_stacks, stretches
from giltrace.analysis.measure.wait_causes import UNHEEDED_NS
from giltrace.analysis.site import frame_text
from giltrace.exporters._relations import Relations
from giltrace.timeline.axis import Ints
from giltrace.timeline.model import Process

Numbers = npt.NDArray[np.int32]

#: How it is known where a holder stood, by `Source`: "seen" by a waiter, "alike" seen in like holds; without either it
#: is only known where the thread "let go", or where it was when the GIL was "taken".
KNOWN_BY = {
    Source.UNKNOWN: "",
    Source.ACQUIRE: "taken",
    Source.RELEASE: "let go",
    Source.REQUEST: "seen",
    Source.ALIKE: "alike",
    Source.SAMPLE: "seen",
}


class Places:
    """The places of one process, found when they are first asked for.

    Stacks are numbers of the process's table, -1 where none is known; lines are places in `texts`, 0 where none is.
    `recorded_ns` is when it was recorded, in ns since 1970: source that is older tells what was called.
    """

    def __init__(self, process: Process, relations: Relations, recorded_ns: int = 0) -> None:
        self._process, self._relations, self._recorded_ns = process, relations, recorded_ns

    @cached_property
    def sites(self) -> Sites:
        """The lines of the stacks."""
        return Sites(self._process)

    @cached_property
    def held(self) -> Stretches:
        """The holds, cut up by what was seen of them."""
        return stretches(self._process)

    @cached_property
    def culprits(self) -> Culprits:
        """Who held the GIL during each wait."""
        return find_culprits(self._process, self.held, self.sites.lines(self.held.stack))

    @cached_property
    def _holds(self) -> tuple[Numbers, npt.NDArray[np.uint8]]:
        return sourced_stacks(self._process)

    @property
    def hold_stack(self) -> Numbers:
        """The stack that stands for each hold."""
        return self._holds[0]

    @property
    def hold_source(self) -> npt.NDArray[np.uint8]:
        """How that is known: a `Source`."""
        return self._holds[1]

    @cached_property
    def wait_stack(self) -> Numbers:
        """Where each waiter stood."""
        return self.sites.wait_stacks()

    @cached_property
    def culprit_stack(self) -> Numbers:
        """Where the culprit of each wait stood."""
        return np.append(self.held.stack, np.int32(-1))[self.culprits.stretch]

    @cached_property
    def culprit_source(self) -> npt.NDArray[np.uint8]:
        """How that is known: a `Source`."""
        return np.append(self.held.source, np.uint8(Source.UNKNOWN))[self.culprits.stretch]

    @cached_property
    def asked_stack(self) -> Numbers:
        """Where the holder stood that each switch request was made to."""
        return np.append(self.hold_stack, np.int32(-1))[self._relations.asked_hold]

    @property
    def block_stack(self) -> Numbers:
        """Where each blocked thread stood."""
        return self._of_blocks("block")

    @property
    def wake_stack(self) -> Numbers:
        """Where the thread stood that woke it."""
        return self._of_blocks("wake")

    def _of_blocks(self, which: str) -> Numbers:
        known = self._process.stacks
        stack: Numbers = np.empty(0, np.int32) if known is None else getattr(known, which)
        count = len(self._process.blocks)
        return stack if len(stack) == count else np.full(count, -1, np.int32)

    @property
    def block_lock(self) -> Ints:
        """The number that each block's lock is called by, from 1 on."""
        numbers: Ints = self._process.blocks["lock"].astype(np.int64) + 1
        return numbers

    @cached_property
    def block_cause(self) -> npt.NDArray[np.uint8]:
        """What each of the blocks was by: a `BlockCause`."""
        return block_causes(self._process, Expressions(self._process, self._recorded_ns))

    @cached_property
    def native(self) -> dict[int, str]:
        """In which native functions holds were seen that went on after a switch request, in words, by their numbers."""
        process = self._process
        if not len(process.native_code.samples):
            return {}
        over = usage.overstays(process, UNHEEDED_NS)
        holds = process.holds[over.hold]
        seen = native_functions(process, holds["thread"], over.asked, holds["end"], over.hold)
        return {hold: functions_text(*what) for hold, what in seen.items()}

    @property
    def texts(self) -> tuple[str, ...]:
        """The lines in words, ``function (file:line)``; the first is empty."""
        return self._lines[0]

    def site(self, stack: npt.NDArray[Any]) -> Ints:
        """The innermost frame of each stack."""
        found: Ints = self._lines[1][stack]
        return found

    def own_line(self, stack: npt.NDArray[Any]) -> Ints:
        """The line that each stack is told by: the user's own if it has one, else its innermost frame."""
        found: Ints = self._lines[2][stack]
        return found

    @cached_property
    def _lines(self) -> tuple[tuple[str, ...], Ints, Ints]:
        """The texts, and for each stack of the table and for none the numbers of its leaf's and of its line's."""
        known = self._process.stacks
        top, tops = self.sites.tops(np.arange(len(known.table) if known is not None else 0))
        number = {"": 0}
        leaf, line = (
            np.array([*(number.setdefault(frame_text(frame), len(number)) for frame in frames), 0], np.int64)
            for frames in ((one.leaf for one in tops), (one.line for one in tops))
        )
        of_stack = np.append(top, -1)
        return tuple(number), leaf[of_stack], line[of_stack]

    def share(self, rows: slice | Ints) -> npt.NDArray[np.float64]:
        """The part of each wait in which its culprit held the GIL, 0 to 1."""
        waits = self._process.waits[rows]
        part: npt.NDArray[np.float64] = self.culprits.ns[rows, 0] / np.maximum(waits["end"] - waits["start"], 1)
        return part

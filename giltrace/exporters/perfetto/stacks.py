"""Python stacks as interned texts: what the details of a hold or a wait show, and the names of culprits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.stretches import Source
from giltrace.exporters._places import Places
from giltrace.exporters.perfetto.packets import Ints
from giltrace.exporters.perfetto.sink import Sink

#: Frames shown of a stack; the trace is for looking, the recording has them all.
_SHOWN = 12

#: What a holder's stack is called, by how it is known (`Source`): nobody may have seen it there.
STACK_NAMES = {
    Source.ACQUIRE: "taken at",
    Source.RELEASE: "let go at",
    Source.REQUEST: "stack",
    Source.ALIKE: "stack of like holds",
    Source.SAMPLE: "stack",
}


@dataclass(frozen=True)
class StackTexts:
    """Interned texts for each stack of the process and, at the end, for none: 0 where there is nothing to tell.

    Annotation values: `stack`, the innermost frames; where the line that it is told by is not the innermost one, that
    (`own_line`) and the innermost one (`leaf`). `line` is the name of a slice: both. `places` tells whose stacks.
    """

    places: Places
    stack: Ints
    own_line: Ints
    leaf: Ints
    line: Ints

    @cached_property
    def hold(self) -> Ints:
        """The stack that stands for each hold."""
        return self.stack[self.places.hold_stack]

    @cached_property
    def wait(self) -> Ints:
        """The stack of each waiter."""
        return self.stack[self.places.wait_stack]

    @cached_property
    def culprit(self) -> Ints:
        """The stack of each wait's culprit."""
        return self.stack[self.places.culprit_stack]


def stack_texts(sink: Sink, places: Places) -> StackTexts:
    """Intern the stacks that the holds, waits and blocks of a process need."""
    of_blocks = (places.block_stack, places.wake_stack)
    used = np.unique(np.concatenate([places.hold_stack, places.wait_stack, places.held.stack, *of_blocks]))
    used = used[used >= 0]
    # The last place stays 0: it is where the number -1 of an unknown stack leads.
    texts = np.zeros((4, int(used[-1]) + 2 if len(used) else 1), np.int64)
    stack, own_line, leaf, line = texts
    stack[used] = sink.argument_values([_shown(places.sites.stack(number)) for number in used.tolist()])
    top, tops = places.sites.tops(used)
    line[used] = sink.names([str(tops[at]) if at >= 0 else "no Python frame" for at in top.tolist()])
    site, own = places.site(used), places.own_line(used)
    differs = site != own
    for column, number in ((own_line, own), (leaf, site)):
        column[used[differs]] = sink.argument_values([places.texts[at] for at in number[differs].tolist()])
    return StackTexts(places, *texts)


def stack_kinds(source: npt.NDArray[np.uint8], stack: Ints) -> Ints:
    """How each of some interned stacks is known, a `Source`; `UNKNOWN` where there is none."""
    return np.where(stack > 0, source, Source.UNKNOWN).astype(np.int64)


def _shown(stack: tuple[str, ...]) -> str:
    return " < ".join(stack[:_SHOWN]) + (" < ..." if len(stack) > _SHOWN else "")

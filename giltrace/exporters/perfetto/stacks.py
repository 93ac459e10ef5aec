"""Python stacks as interned texts: what the details of a hold or a wait show, and the names of culprits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from giltrace.analysis.measure.sites import Sites
from giltrace.analysis.measure.stretches import stretches
from giltrace.exporters._relations import Relations
from giltrace.exporters.perfetto.packets import Ints
from giltrace.exporters.perfetto.sink import Sink
from giltrace.timeline.model import Array, Process

#: Frames shown of a stack; the trace is for looking, the recording has them all.
_SHOWN = 12


@dataclass(frozen=True)
class StackTexts:
    """Interned annotation values, 0 for none: per hold where the holder stood (`hold`), per wait where the waiter
    stood (`wait`) and where the holder stood that it lost most to (`culprit`). `held` are the holds cut up by
    what was seen of them (`analysis.stretches`), `lines` the line of each (an interned slice name, 0 for none).
    """

    hold: Ints
    wait: Ints
    culprit: Ints
    held: Array
    lines: Ints


def stack_texts(sink: Sink, process: Process, relations: Relations) -> StackTexts:
    """Intern the stacks that the holds and waits of `process` need."""
    sites = Sites(process)
    hold, wait = sites.hold_stacks(), sites.wait_stacks()
    cut = stretches(process)
    used = np.unique(np.concatenate([hold, wait, cut.stack]))
    used = used[used >= 0]
    stacks = {int(number): sites.stack(int(number)) for number in used}
    size = int(used[-1]) + 2 if len(used) else 1
    values = np.zeros(size, np.int64)
    lines = np.zeros(size, np.int64)
    # The last place stays 0: it is where the number -1 of an unknown stack leads.
    values[used] = sink.argument_values([_shown(stack) for stack in stacks.values()])
    lines[used] = sink.names([stack[0] if stack else "no Python frame" for stack in stacks.values()])
    culprit = np.where(relations.culprit_hold >= 0, np.append(values[hold], 0)[relations.culprit_hold], 0)
    return StackTexts(values[hold], values[wait], culprit, cut.holds, lines[cut.stack])


def _shown(stack: tuple[str, ...]) -> str:
    return " < ".join(stack[:_SHOWN]) + (" < ..." if len(stack) > _SHOWN else "")

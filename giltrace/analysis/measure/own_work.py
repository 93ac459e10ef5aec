"""Where the user's code was in holds whose stacks have none of it: it was left before they were looked at.

What a thread computes for others, as one of a pool does, is done when the GIL is given up: the stack has the library
that hands the result on. Where nobody waited for the GIL, nobody looked meanwhile. A sampler may have.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.own_code import own_stacks
from giltrace.analysis.measure.own_line import innermost_own
from giltrace.analysis.measure.sampled import own_lines, sampled_lines
from giltrace.analysis.measure.stretches import kinds, main_stacks
from giltrace.analysis.site import Frame
from giltrace.timeline import gathered
from giltrace.timeline.axis import Ints, LifeAxis
from giltrace.timeline.model import Process, Stacks
from giltrace.timeline.once import once


@once
def work_stacks(process: Process) -> npt.NDArray[np.int32]:
    """`main_stacks`, but for holds whose stack has none of the user's code what a sampler saw in them, or in the like
    one that is nearest in time: the number of that line (`own_lines`), beyond those of stacks; or where they began.
    """
    stack: npt.NDArray[np.int32] = main_stacks(process)
    known = process.stacks
    if known is None or not len(process.holds):
        return stack
    own = np.append((innermost_own(known.table) >= 0) | own_stacks(known.table), False)
    blind = np.flatnonzero(~own[stack])
    if not len(blind):
        return stack
    stack = stack.astype(np.int32)
    begun = own[known.hold_begin[blind]]
    stack[blind[begun]] = known.hold_begin[blind[begun]]
    line = _sampled(process, known, blind)
    stack[blind[line >= 0]] = len(known.table) + line[line >= 0]
    return stack


def sampled_line(process: Process, number: int) -> Frame | None:
    """The line that a number of `work_stacks` stands for, None for one of a stack."""
    first = len(process.stacks.table) if process.stacks is not None else 0
    return own_lines(process)[number - first] if number >= first else None


def _sampled(process: Process, known: Stacks, blind: Ints) -> Ints:
    """The number of the line that was sampled in these holds or in like ones, -1 for none of the user's."""
    line: Ints = np.full(len(blind), -1, np.int64)
    seen = sampled_lines(process)
    if not (seen.line >= 0).any():
        return line
    thread, start, end = (process.holds[name][blind] for name in ("thread", "start", "end"))
    axis = LifeAxis.of_threads(process.threads)
    first, last = (axis.place(thread, edge) for edge in (start, end))
    # In those that are shorter than the clocks differ, something else may have been seen.
    long = np.flatnonzero((last - first) // gathered.times(process)[blind] > seen.error_ns)
    long = long[np.argsort(first[long], kind="stable")]
    if not len(long):
        return line
    row = np.maximum(np.searchsorted(first[long], seen.place, "right") - 1, 0)
    at = long[row]
    inside = np.flatnonzero((first[at] <= seen.place) & (seen.place < last[at]))
    if not len(inside):
        return line
    kind = np.unique(kinds(process, known)[blind[long]], return_inverse=True)[1].ravel()
    time = start[at[inside]] + seen.place[inside] - first[at[inside]]
    middle = (start[long] + end[long]) // 2
    nearest = _nearest((kind[row[inside]], time - process.start), (kind, middle - process.start))
    line[long[nearest >= 0]] = seen.line[inside[nearest[nearest >= 0]]]
    return line


def _nearest(seen: tuple[Ints, Ints], wanted: tuple[Ints, Ints]) -> Ints:
    """For each of those `wanted` (a kind and a time) the place of that one of its kind which was `seen` nearest to it
    in time; -1 for none.
    """
    # All times of one kind come after those of the one before, with room between them. A microsecond is exact enough.
    far = 4 * (max(int(time.max(initial=0)) for _, time in (seen, wanted)) >> 10) + 1
    place, middle = (kind * far + (time >> 10) for kind, time in (seen, wanted))
    order = np.argsort(place, kind="stable")
    place = place[order]
    after = np.minimum(np.searchsorted(place, middle), len(place) - 1)
    before = np.maximum(after - 1, 0)
    found = np.where(middle - place[before] < np.abs(place[after] - middle), before, after)
    return np.where(seen[0][order][found] == wanted[0], order[found], -1)

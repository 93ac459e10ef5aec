"""Garbage collections as what they are: a function that some line of the program happened to call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from giltrace.recording.events import FRAME, StackTable
from giltrace.recording.layout import COLLECTING, Kind
from giltrace.timeline.axis import Bools
from giltrace.timeline.model import Array

#: What is put innermost on the stack of a holder that was seen to collect garbage. No code has such a file.
FUNCTION, FILE = "collection", "<garbage collector>"


def with_collections(events: Array, table: StackTable) -> tuple[Array, StackTable]:
    """Give the samples of holders that were collecting garbage (dtype `GIL_EVENT`) stacks that say so.

    The stacks that these need are added to the end of the table.
    """
    stacks = collecting_stacks(events)
    if not len(stacks):
        return events, table
    first, sizes = table.offsets[stacks], np.diff(table.offsets)[stacks]
    offsets = np.append(0, np.cumsum(sizes + 1))
    frames = np.empty(offsets[-1], FRAME)
    inner = np.zeros(len(frames), np.bool_)
    inner[offsets[:-1]] = True
    frames[inner] = np.array((len(table.strings), len(table.strings) + 1, 0, 0, 0), FRAME)
    within = np.arange(len(frames) - len(stacks)) - np.repeat(offsets[:-1] - np.arange(len(stacks)), sizes)
    frames[~inner] = table.frames[np.repeat(first, sizes) + within]
    return renumbered(events, stacks, len(table)), replace(
        table,
        frames=np.concatenate([table.frames, frames]),
        offsets=np.concatenate([table.offsets, table.offsets[-1] + offsets[1:]]),
        truncated=np.concatenate([table.truncated, table.truncated[stacks]]),
        strings=(*table.strings, FUNCTION, FILE),
    )


def collecting_stacks(events: Array) -> npt.NDArray[np.int32]:
    """The stacks of holders that were seen to collect garbage, each once, sorted."""
    stacks: npt.NDArray[np.int32] = np.unique(events["stack"][_collecting(events)])
    return stacks


def renumbered(events: Array, stacks: npt.NDArray[np.int32], first: int) -> Array:
    """A copy of the events; samples that show collecting have stacks from `first` on in the place of these."""
    events, collecting = events.copy(), _collecting(events)
    events["stack"][collecting] = first + np.searchsorted(stacks, events["stack"][collecting])
    return events


def _collecting(events: Array) -> Bools:
    found: Bools = (events["kind"] == Kind.SAMPLE) & ((events["arg"] & COLLECTING) != 0) & (events["stack"] >= 0)
    return found

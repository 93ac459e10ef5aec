"""Garbage collections as what they are: a function that some line of the program happened to call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from giltrace.recording.events import FRAME, StackTable
from giltrace.recording.layout import COLLECTING, Kind
from giltrace.timeline.model import Array

#: What is put innermost on the stack of a holder that was seen to collect garbage. No code has such a file.
FUNCTION, FILE = "collection", "<garbage collector>"


def with_collections(events: Array, table: StackTable) -> tuple[Array, StackTable]:
    """Give the samples of holders that were collecting garbage (dtype `GIL_EVENT`) stacks that say so.

    The stacks that these need are added to the end of the table.
    """
    collecting = (events["kind"] == Kind.SAMPLE) & ((events["arg"] & COLLECTING) != 0) & (events["stack"] >= 0)
    if not collecting.any():
        return events, table
    stacks, number = np.unique(events["stack"][collecting], return_inverse=True)
    first, sizes = table.offsets[stacks], np.diff(table.offsets)[stacks]
    offsets = np.append(0, np.cumsum(sizes + 1))
    frames = np.empty(offsets[-1], FRAME)
    inner = np.zeros(len(frames), np.bool_)
    inner[offsets[:-1]] = True
    frames[inner] = np.array((len(table.strings), len(table.strings) + 1, 0, 0, 0), FRAME)
    within = np.arange(len(frames) - len(stacks)) - np.repeat(offsets[:-1] - np.arange(len(stacks)), sizes)
    frames[~inner] = table.frames[np.repeat(first, sizes) + within]
    events = events.copy()
    events["stack"][collecting] = len(table) + number.ravel()
    return events, replace(
        table,
        frames=np.concatenate([table.frames, frames]),
        offsets=np.concatenate([table.offsets, table.offsets[-1] + offsets[1:]]),
        truncated=np.concatenate([table.truncated, table.truncated[stacks]]),
        strings=(*table.strings, FUNCTION, FILE),
    )

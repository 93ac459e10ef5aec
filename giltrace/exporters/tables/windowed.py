"""The rows of an image, window by window if it is read so: what grows with what its threads did with GILs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.dealing import Dealing
from giltrace.analysis.measure.stretches import add_to
from giltrace.exporters.tables.columns import TABLES
from giltrace.exporters.tables.image import Image
from giltrace.exporters.tables.sums import Blame, Waiting
from giltrace.exporters.tables.texts import Columns
from giltrace.timeline.window_states import WindowStates
from giltrace.timeline.windows import Window, windows

#: Told row by row of each window; the other two are added up.
_ROWS = ("holds", "waits", "switch_requests", "states")
_WINDOWED = (*_ROWS, "blame", "waiting")


def pieces_of(image: Image, folder: Path) -> Iterator[tuple[str, Columns]]:
    """The pieces of all tables of one image, each with the table's name.

    What has to be kept of it meanwhile is in the `folder`, in files without a name.
    """
    in_windows = image.process.outlined is not None
    for table, rows in TABLES.items():
        if not (in_windows and table in _WINDOWED):
            yield from ((table, columns) for columns in rows(image))
    if in_windows:
        yield from _windowed(image, folder)


def _windowed(image: Image, folder: Path) -> Iterator[tuple[str, Columns]]:
    dealt = _dealt(image, folder)
    states, blame, waiting = WindowStates(image.process), Blame(image), Waiting(image)
    for window in windows(image.process):
        process = replace(window.process, states=states.of(window), dealt=_of_window(dealt, window))
        part = replace(image, process=process, window=window, first_hold=image.first_hold + window.first_hold)
        for table in _ROWS:
            yield from ((table, columns) for columns in TABLES[table](part))
        blame.add(part)
        waiting.add(part)
    yield from (("blame", columns) for columns in blame.tables())
    yield from (("waiting", columns) for columns in waiting.tables())


def _dealt(image: Image, folder: Path) -> npt.NDArray[np.int32]:
    """The stack that each hold of the image shares in, of like holds; -1 for none."""
    outlined = image.process.outlined
    if image.process.stacks is None or outlined is None or not outlined.sampled:
        return np.empty(0, np.int32)
    with closing(Dealing(folder)) as dealing:
        for window in windows(image.process):
            add_to(dealing, window.process, window.own(window.process.holds))
        return dealing.deal()


def _of_window(dealt: npt.NDArray[np.int32], window: Window) -> npt.NDArray[np.int32]:
    """What the holds of a window were dealt; those that are there for their threads' stacks only may be any."""
    number = window.first_hold + np.arange(len(window.process.holds))
    if not len(dealt):
        return np.full(len(number), -1, np.int32)
    return np.asarray(dealt[np.clip(number, 0, len(dealt) - 1)])

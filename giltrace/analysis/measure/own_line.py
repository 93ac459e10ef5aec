"""The user's own code: where each stack was last in it, and not in a library (`recording.libraries`)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.own_code import own_stacks
from giltrace.recording.events import StackTable
from giltrace.recording.libraries import Libraries
from giltrace.timeline.axis import Ints


def innermost_own(table: StackTable) -> Ints:
    """Per stack the place in ``table.frames`` of its innermost frame in the user's code, -1 if it has none."""
    place = np.append(np.flatnonzero(~_of_libraries(table)[table.frames["file"]]), len(table.frames))
    found = place[np.searchsorted(place, table.offsets[:-1])]
    return np.where((found < table.offsets[1:]) & ~own_stacks(table), found, -1)


def _of_libraries(table: StackTable) -> npt.NDArray[np.bool_]:
    """Which strings, taken as files, are not the user's."""
    libraries, count = Libraries(), len(table.strings)
    # Packed into one integer, as rows of several fields sort slowly.
    for code in np.unique(table.frames["function"].astype(np.int64) * count + table.frames["file"]).tolist():
        function, file = divmod(code, count)
        libraries.learn(table.strings[function], table.strings[file])
    result = np.zeros(len(table.strings), np.bool_)
    for at in np.unique(table.frames["file"]).tolist():
        result[at] = libraries.has(table.strings[at])
    return result

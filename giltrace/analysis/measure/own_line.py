"""The user's own code: where each stack was last in it, and not in a library (`recording.libraries`).

What is the user's can be said instead (`StackTable.own`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.own_code import own_stacks
from giltrace.recording.events import StackTable
from giltrace.recording.libraries import Libraries
from giltrace.timeline.axis import Ints


def innermost_own(table: StackTable) -> Ints:
    """Per stack the place in ``table.frames`` of its innermost frame in the user's code, -1 if it has none."""
    place = np.append(np.flatnonzero(~of_libraries(table)[table.frames["file"]]), len(table.frames))
    found = place[np.searchsorted(place, table.offsets[:-1])]
    return np.where((found < table.offsets[1:]) & ~own_stacks(table), found, -1)


def is_under(file: str, paths: Sequence[str]) -> bool:
    """Whether a file is one of these paths or lies below one."""
    return any(file == path or file.startswith(path.rstrip("/") + "/") for path in paths)


def of_libraries(table: StackTable) -> npt.NDArray[np.bool_]:
    """Which strings, taken as files, are not the user's."""
    libraries, count = Libraries(), len(table.strings)
    result = np.zeros(count, np.bool_)
    files = np.unique(table.frames["file"]).tolist()
    if table.own:
        result[[at for at in files if not is_under(table.strings[at], table.own)]] = True
        return result
    # Packed into one integer, as rows of several fields sort slowly.
    for code in np.unique(table.frames["function"].astype(np.int64) * count + table.frames["file"]).tolist():
        function, file = divmod(code, count)
        libraries.learn(table.strings[function], table.strings[file])
    for at in files:
        result[at] = libraries.has(table.strings[at])
    return result

"""The user's own code: where each stack was last in it.

Python's standard library, what is installed beside it and what is frozen into the interpreter are not the user's,
unless it is said which paths are. Only paths tell that: a recording is read on machines that do not have the files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.own_code import own_stacks
from giltrace.recording.events import StackTable
from giltrace.timeline.axis import Ints

_LIBRARY = re.compile(
    r"""(?:^|/)(?:site|dist)-packages/  # what is installed, in any layout
    | (?:^|/)lib(?:32|64)?/(?:python|pypy)\d+(?:\.\d+t?)?/  # an installed standard library
    | (?:^|/)python\d+\.zip/  # one in an archive
    | ^<frozen\ | ^<garbage\ collector>$  # the interpreter's own""",
    re.VERBOSE,
)
# Whoever starts threads has this function on their stacks: it tells where the standard library lies in a build tree.
_THREADING = "/threading.py"
_BOOTSTRAP = ("_bootstrap", "_bootstrap_inner", "Thread._bootstrap", "Thread._bootstrap_inner")


def innermost_own(table: StackTable) -> Ints:
    """Per stack the place in ``table.frames`` of its innermost frame in the user's code, -1 if it has none."""
    place = np.append(np.flatnonzero(~_of_libraries(table)[table.frames["file"]]), len(table.frames))
    found = place[np.searchsorted(place, table.offsets[:-1])]
    return np.where((found < table.offsets[1:]) & ~own_stacks(table), found, -1)


def is_under(file: str, paths: Sequence[str]) -> bool:
    """Whether a file is one of these paths or lies below one."""
    return any(file == path or file.startswith(path.rstrip("/") + "/") for path in paths)


def _of_libraries(table: StackTable) -> npt.NDArray[np.bool_]:
    """Which strings, taken as files, are not the user's."""
    files, functions = np.unique(table.frames["file"]).tolist(), table.frames["function"]
    result = np.zeros(len(table.strings), np.bool_)
    if table.own:
        result[[at for at in files if not is_under(table.strings[at], table.own)]] = True
        return result
    starts = np.isin(functions, [at for at, text in enumerate(table.strings) if text in _BOOTSTRAP])
    folders = {
        text.removesuffix("threading.py")
        for text in (table.strings[at] for at in np.unique(table.frames["file"][starts]).tolist())
        if text.endswith(_THREADING)
    }
    for at in files:
        text = table.strings[at]
        result[at] = _LIBRARY.search(text) is not None or any(text.startswith(folder) for folder in folders)
    return result

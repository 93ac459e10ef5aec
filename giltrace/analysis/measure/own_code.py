"""The holds that giltrace's own code in the program is responsible for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from giltrace.analysis.measure.stretches import main_stacks
from giltrace.recording.events import StackTable
from giltrace.timeline.model import Process

Bools = npt.NDArray[np.bool_]

#: What runs within the program: the viztracer collector, which imports at the start and saves at the end; what notes
#: a worker's tasks and sends home what was recorded.
_OWN_FILES = (
    "/giltrace_viztracer.py",
    "/giltrace/integrations/dask/worker.py",
    "/giltrace/integrations/fleet/session.py",
)


def own_stacks(table: StackTable) -> Bools:
    """Which stacks have a frame of giltrace's own code."""
    return table.within(lambda file: file.endswith(_OWN_FILES))


def own_holds(process: Process) -> Bools:
    """Which holds giltrace's own code is responsible for: by the stack that stands for them."""
    if process.stacks is None:
        return np.zeros(len(process.holds), np.bool_)
    own = np.append(own_stacks(process.stacks.table), False)
    if not own.any():
        return np.zeros(len(process.holds), np.bool_)
    found: Bools = own[main_stacks(process)]
    return found

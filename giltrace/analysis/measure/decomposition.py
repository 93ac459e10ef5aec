"""Where waited time went."""

from __future__ import annotations

from giltrace.analysis.measure.wait_causes import wait_causes
from giltrace.analysis.results import WaitDecomposition
from giltrace.timeline.model import Process


def decompose(process: Process) -> WaitDecomposition:
    """Split the time that the chosen threads of a process waited by cause; the parts add up to it exactly."""
    causes = wait_causes(process)[process.of_chosen(process.waits)]
    python, in_c, no_core, blocked, free = causes.sum(axis=0).tolist()
    return WaitDecomposition(python, in_c, no_core + blocked, free, no_core, blocked)

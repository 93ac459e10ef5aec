"""Where waited time went."""

from __future__ import annotations

from giltrace.analysis.measure.wait_causes import wait_causes_apart
from giltrace.analysis.results import WaitDecomposition
from giltrace.timeline.model import Process


def decompose(process: Process) -> WaitDecomposition:
    """Split all waited time of a process by cause; the parts add up to it exactly."""
    python, in_c, no_core, blocked, free = wait_causes_apart(process).sum(axis=0).tolist()
    return WaitDecomposition(python, in_c, no_core + blocked, free, no_core, blocked)

"""Where waited time went."""

from __future__ import annotations

from giltrace.analysis.measure.wait_causes import wait_causes
from giltrace.analysis.results import WaitDecomposition
from giltrace.timeline.model import Process


def decompose(process: Process) -> WaitDecomposition:
    """Split the time that the chosen threads of a process waited by cause; the parts add up to it exactly."""
    parts = wait_causes(process)[process.of_chosen(process.waits)].sum(axis=0).tolist()
    return WaitDecomposition(*parts)

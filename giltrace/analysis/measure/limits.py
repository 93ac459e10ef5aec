"""How much less than the whole machine a process might use."""

from __future__ import annotations

from giltrace.timeline.model import Cores


def describe_limits(cores: Cores | None, machine: int) -> str:
    """Say it in words, of a machine with so many cores, 0 if that is not known: "may use 1 of 2 cores".

    Empty where the process might use all of them, or where nothing is known.
    """
    if cores is None:
        return ""
    told = []
    if cores.cpus < machine:
        told.append(f"may use {cores.cpus} of {machine} cores")
    if cores.quota is not None and cores.quota < cores.cpus:
        told.append(f"limited to {cores.quota:g} CPU{'s' * (cores.quota != 1)} by its container")
    return ", ".join(told)

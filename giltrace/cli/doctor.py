"""`giltrace doctor`."""

from __future__ import annotations

import platform
import sys
from pathlib import Path
from typing import Annotated

import typer

from giltrace.cli.completion.candidates import processes
from giltrace.cli.options import Python


def doctor(
    python: Python = None,
    pid: Annotated[
        int | None,
        typer.Option(
            "--pid",
            metavar="PID",
            min=1,
            help="Say what can be captured of a running process.",
            autocompletion=processes,
        ),
    ] = None,
) -> None:
    """Say what can be captured here, for which interpreter or running process, and how to get the rest.

    Touches nothing. Exits with 0 if exact capture works, with 1 if it does not.
    """
    if pid is not None:
        _running(pid)
        return
    from giltrace import native
    from giltrace.collectors import registry
    from giltrace.launch.target import describe_python, find_python

    interpreter = find_python(python)
    print(f"interpreter  {interpreter}: {describe_python(interpreter)}")
    print(f"machine      {sys.platform} {platform.machine()}, {_clock()}")
    print(f"tracers      {', '.join(native.tracers()) or 'none'}")
    exact = True
    for collector in (kind() for kind in registry()):
        reason = collector.available(interpreter)
        print(f"{collector.name:<12} {'ok' if reason is None else reason}")
        exact = exact and (reason is None or collector.name != "gil")
    if not exact:
        raise typer.Exit(1)


def _running(pid: int) -> None:
    from giltrace.launch.attach.checkup import check_up

    description, findings = check_up(pid)
    print(f"process {pid}  {description}")
    for finding in findings:
        print(f"{finding.name:<8} {'ok' if finding.problem is None else finding.problem}  (needs {finding.needs})")
    if any(finding.problem for finding in findings if finding.name == "exact"):
        raise typer.Exit(1)


def _clock() -> str:
    """Which clock the tracer stamps with; the kernel decides whether the TSC can be trusted."""
    try:
        source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource").read_text().strip()
    except OSError:
        source = "unknown"
    stamped = "TSC (about 10 ns a stamp)" if source == "tsc" else "CLOCK_MONOTONIC (about 25 ns a stamp or more)"
    return f"clock source {source}: events are stamped with {stamped}"

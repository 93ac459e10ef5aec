"""`giltrace dask`."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from giltrace.cli.options import Force, NoTrace, Output, StackDepth, Stacks
from giltrace.cli.outcome import outputs, show
from giltrace.cli.progress import end_of_line, getting_on, working
from giltrace.cli.telling import tell
from giltrace.cli.values import parse_length
from giltrace.errors import GiltraceError
from giltrace.text import plural, visible

if TYPE_CHECKING:
    from giltrace.integrations.fleet.tracing import FleetTracing

#: So often it is looked whether it is over.
_LOOK_SECONDS = 0.2

_Address = Annotated[
    str,
    typer.Argument(metavar="SCHEDULER", help="The scheduler's address, or its --scheduler-file.", show_default=False),
]


def dask(
    scheduler: _Address,
    duration: Annotated[
        int | None,
        typer.Option(
            "--duration",
            "-d",
            metavar="TIME",
            parser=parse_length,
            help="Record for 10s, 500ms, 2m. [default: until Ctrl-C]",
        ),
    ] = None,
    output: Output = None,
    force: Force = False,
    no_trace: NoTrace = False,
    stacks: Stacks = StackDepth.full,
    most: Annotated[
        int, typer.Option("--most", metavar="MB", help="A worker that has recorded so much ends.", min=1)
    ] = 2048,
) -> None:
    """Record all workers of a Dask cluster at once, and which task ran on which of their threads.

    \b
    giltrace dask tcp://scheduler:8786 -d 10s          for ten seconds
    giltrace dask tcp://scheduler:8786 -o slow         until Ctrl-C
    giltrace dask scheduler.json                       by the scheduler's file

    Workers need nothing but giltrace installed, and need not be started anew; those that join meanwhile are recorded
    too. What they have is brought home in pieces and becomes one recording, NAME.giltrace, on the clock of this
    machine, and one trace, NAME.pftrace, with the tasks on their threads. `giltrace report NAME` begins with which
    kind of task waited, for which, at which lines; --process '*@HOST*' chooses the workers of one host.

    A worker that ends meanwhile costs its own part only. Whatever is missing is told.
    """
    from giltrace.integrations.dask import DaskCluster, connect
    from giltrace.integrations.fleet.tracing import FleetTracing
    from giltrace.recording.folder import COMMAND_LINE

    folder, trace = outputs(output, "dask", force=force)
    with working(f"connecting to {scheduler}"):
        client = connect(scheduler)
    try:
        tracing = FleetTracing(
            DaskCluster(client),
            folder,
            stacks=stacks.frames,
            force=force,
            remedies=COMMAND_LINE,
            most_bytes=most << 20,
            telling=lambda text: getting_on(visible(text)),
        )
        tracing.begin()
        began = len(tracing.told)
        _record(tracing, None if duration is None else duration / 1e9)
        with working("bringing home what the workers recorded"):
            tracing.end()
    finally:
        end_of_line()
        client.close(timeout=1)
    for line in (*tracing.told[began:], *tracing.partly):
        tell(GiltraceError(line), kind="warning")
    show(folder, trace, no_trace=no_trace)


def _record(tracing: FleetTracing, seconds: float | None) -> None:
    """Say that it has begun, and wait for so long, or until Ctrl-C."""
    try:
        for line in tracing.told:
            tell(GiltraceError(line), kind="warning")
        ends = "; Ctrl-C ends it" if seconds is None else ""
        print(f"giltrace: recording {plural(tracing.workers, 'worker')}{ends}", file=sys.stderr, flush=True)
        until = None if seconds is None else time.monotonic() + seconds
        while until is None or time.monotonic() < until:
            time.sleep(_LOOK_SECONDS if until is None else max(min(_LOOK_SECONDS, until - time.monotonic()), 0))
    except KeyboardInterrupt:
        end_of_line()

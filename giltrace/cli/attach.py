"""`giltrace attach`."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from giltrace.cli.completion.candidates import one_of, processes
from giltrace.cli.flight import flight_recorder, ring_size, switches_kept
from giltrace.cli.options import (
    DumpApart,
    DumpOn,
    Force,
    Light,
    MaxDumps,
    NoTrace,
    OnDump,
    Output,
    Ring,
    StackDepth,
)
from giltrace.cli.outcome import outputs, show
from giltrace.cli.progress import end_of_line, getting_on
from giltrace.cli.values import parse_length
from giltrace.errors import UsageError

if TYPE_CHECKING:
    from giltrace.collectors.base import Collector

_Pid = Annotated[
    int,
    typer.Argument(metavar="PID", help="The process to record.", show_default=False, min=1, autocompletion=processes),
]
_Without = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        metavar="COLLECTOR",
        help="Leave out sched or py-spy; repeatable.",
        autocompletion=one_of("sched", "py-spy"),
    ),
]


def attach(
    pid: _Pid,
    observe: Annotated[
        bool, typer.Option("--observe", help="Only look from outside: sampled, and nothing in the process is touched.")
    ] = False,
    duration: Annotated[
        int | None,
        typer.Option(
            "--duration",
            "-d",
            metavar="TIME",
            parser=parse_length,
            help="Record for 10s, 500ms, 2m. [default: until Ctrl-C or the process's end]",
        ),
    ] = None,
    output: Output = None,
    force: Force = False,
    no_trace: NoTrace = False,
    light: Light = False,
    without: _Without = None,
    allow_seccomp: Annotated[
        bool, typer.Option("--allow-seccomp", help="Attach although a seccomp filter might kill the process for it.")
    ] = False,
    stacks: Annotated[
        StackDepth | None, typer.Option("--stacks", help="Python stacks at each hand-over of the GIL. [default: full]")
    ] = None,
    ring: Ring = "",
    dump_on: DumpOn = None,
    max_dumps: MaxDumps = 10,
    dump_apart: DumpApart = "30s",
    on_dump: OnDump = "",
) -> None:
    """Record a Python process that runs already, exactly, and leave it as it was.

    \b
    giltrace attach 4242                 until Ctrl-C or the end of the process
    giltrace attach 4242 -d 10s          for ten seconds
    giltrace attach --observe 4242       the same, sampled from outside
    giltrace attach 4242 --ring 64MiB --dump-on "stall>100ms"

    It goes on for the time of -d, or until Ctrl-C or the process's end. The result is NAME.giltrace, the recording, and
    NAME.pftrace, for the Perfetto UI; a summary goes to stderr.

    One thread is stopped for a few milliseconds, at a moment at which it can start another; that one loads a library,
    which stays in the process, idle, afterwards. With --observe not even that: the GIL's state is read from outside
    some ten thousand times a second. What comes out is sampled, and the report says how well.
    `giltrace doctor --pid PID` tells what is possible, and touches nothing.

    A flight recorder, for what happens once a day: --ring keeps the newest events only (and implies --light), and each
    --dump-on, or `giltrace dump PID`, writes them out as NAME-1.giltrace, NAME-2.giltrace and so on, with one sentence
    that says what happened and by which line. A request is then told by the server's frames, not by the middleware.
    """
    for_a_tracer = {"--stacks": stacks is not None, "--allow-seccomp": allow_seccomp, "--ring": bool(ring)}
    _refuse(without or [], for_a_tracer if observe else {})
    size = ring_size(ring)
    flight = flight_recorder(size, dump_on or [], max_dumps, dump_apart, on_dump)
    collectors = _collectors(without or [], size, light=light) + flight
    folder, trace = outputs(output, f"attach-{pid}", force=force)
    seconds = None if duration is None else duration / 1e9
    if observe:
        from giltrace.launch.observe import observe as look

        look(pid, folder, collectors, seconds=seconds, force=force, begun=partial(_announce, pid, seconds))
    else:
        depth = (stacks or StackDepth.full).frames
        _exactly(
            pid, folder, collectors, depth=depth, ring=size, seconds=seconds, force=force, allow_seccomp=allow_seccomp
        )
    show(folder, trace, no_trace=no_trace)


def _collectors(without: list[str], ring: int, *, light: bool) -> list[Collector]:
    from giltrace.collectors import LIGHT, USUAL, choose

    settings = {"sched": switches_kept(ring)}
    return choose(LIGHT if light or ring else USUAL, without=[*without, "gil"], settings=settings)


def _exactly(
    pid: int,
    folder: Path,
    collectors: list[Collector],
    *,
    depth: int,
    ring: int,
    seconds: float | None,
    force: bool,
    allow_seccomp: bool,
) -> None:
    """Record with the tracer in the process, and say how that was left, if there is anything to be said."""
    from giltrace.launch.attach.session import attach as run

    outcome = run(
        pid,
        folder,
        collectors,
        depth=depth,
        ring=ring,
        seconds=seconds,
        force=force,
        allow_seccomp=allow_seccomp,
        progress=_flies if ring else _progress,
    )
    end_of_line()
    for line in outcome.said:
        print(f"giltrace: {line}", file=sys.stderr)


def _refuse(without: list[str], with_observe: dict[str, bool]) -> None:
    """Raise `UsageError` for what cannot be left out, and for options about a tracer that --observe does not load."""
    if "gil" in without:
        raise UsageError("the use of the GIL is what attaching records", "leave out sched or py-spy only")
    options = " and ".join(option for option, was_given in with_observe.items() if was_given)
    if options:
        message = f"--observe loads nothing into the process that {options} could be for"
        raise UsageError(message, f"leave {options} out, or --observe to attach exactly")


def _announce(pid: int, seconds: float | None) -> None:
    ends = "; Ctrl-C ends it" if seconds is None else ""
    print(f"giltrace: observing process {pid}{ends}", file=sys.stderr)


def _progress(seconds: float, events: int) -> None:
    getting_on(f"{seconds:7.1f} s  {events:,} events")


def _flies(seconds: float, events: int) -> None:
    # How many there were of which the newest are kept is not known.
    getting_on(f"{seconds:7.1f} s  the newest events are kept")

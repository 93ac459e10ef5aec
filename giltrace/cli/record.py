"""`giltrace record`."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Annotated

import typer

from giltrace.cli.completion.candidates import targets
from giltrace.cli.flight import announce, flight_recorder, ring_size, switches_kept
from giltrace.cli.options import (
    Code,
    DumpApart,
    DumpOn,
    Force,
    Light,
    MaxDumps,
    MaxSize,
    Module,
    NoTrace,
    OnDump,
    Output,
    Python,
    Ring,
    Spans,
    StackDepth,
    Stacks,
    With,
    Without,
)
from giltrace.cli.outcome import exit_like, outputs, show
from giltrace.cli.progress import working
from giltrace.cli.starting import ends
from giltrace.cli.values import parse_size
from giltrace.errors import UsageError

if TYPE_CHECKING:
    from giltrace.collectors.base import Collector
    from giltrace.launch.target import Target


def record(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[--] SCRIPT|WORKLOAD|COMMAND [ARGS]...",
            help="What to run.",
            show_default=False,
            autocompletion=targets,
        ),
    ] = None,
    module: Module = None,
    code: Code = None,
    output: Output = None,
    force: Force = False,
    no_trace: NoTrace = False,
    light: Light = False,
    spans: Spans = False,
    also: With = None,
    without: Without = None,
    stacks: Stacks = StackDepth.full,
    max_size: MaxSize = "",
    ring: Ring = "",
    dump_on: DumpOn = None,
    max_dumps: MaxDumps = 10,
    dump_apart: DumpApart = "30s",
    on_dump: OnDump = "",
    python: Python = None,
) -> None:
    """Run a Python program and record who held the GIL, on which core, and who waited.

    \b
    giltrace record app.py --its options       a script, its arguments after it
    giltrace record -m http.server 8000        a module
    giltrace record -c "import this"           a string
    giltrace record cpu_bound                  a bundled workload, by its name
    giltrace record -- gunicorn -w2 app:app    a command, and all Pythons below it

    The result is NAME.giltrace, the recording, and NAME.pftrace, for the Perfetto UI; a summary goes to stderr. NAME is
    the target's; where that is taken the next is NAME.2, unless -o names another or -f replaces it. The program's
    input, output, signals and exit status are its own. Options of giltrace come before the target.

    Four collectors: gil (exact GIL events with Python stacks), sched (core switches), py-spy (samples, from outside)
    and viztracer (every function call, from inside: it slows code that makes many calls). The first three run by
    default, all four on a bundled workload, the first two with --light. --with and --without change that, and --spans
    is --with viztracer. py-spy and viztracer have a budget: each ends where it would cost more than 10 % of the
    program's CPU time, and says so.

    Recording ends before the program where --max-size is reached, or less than 256 MiB are free on the disk.

    A flight recorder, for what happens once a day: --ring keeps the newest events only (and implies --light), and each
    --dump-on, or `giltrace dump PID`, writes them out as NAME-1.giltrace, NAME-2.giltrace and so on, with one sentence
    that says what happened and by which line. --on-dump passes them on.
    """
    from giltrace.launch.recorder import record as run
    from giltrace.launch.room import Room
    from giltrace.launch.target import resolve

    target = resolve(words or [], module=module, code=code, python=python)
    if target.bundled and {"-h", "--help"} & set(target.argv):
        os.execv(target.argv[0], target.argv)  # there is nothing to record
    size, most = _sizes(ring, max_size)
    wanted, settings = [*(also or []), *(["viztracer"] if spans else [])], _settings(stacks, size)
    flight = flight_recorder(size, dump_on or [], max_dumps, dump_apart, on_dump)
    collectors = _collectors(target, wanted, without or [], light=light, ring=size > 0, settings=settings) + flight
    _refuse_without_tracer(collectors)
    folder, trace = outputs(output, target.name, force=force)
    room, ready = None if size else Room(folder, most, announce), ends(no_trace=no_trace)
    status = run(target, folder, collectors, force=force, meanwhile=ready, ending=_finishing, room=room)
    show(folder, trace, no_trace=no_trace)
    exit_like(status)


def _finishing() -> AbstractContextManager[None]:
    return working("finishing the recording")


def _settings(stacks: StackDepth, ring: int) -> dict[str, dict[str, int]]:
    """What the collectors are told, of which each process keeps so many bytes of its newest events (0: all)."""
    return {
        "gil": {"depth": stacks.frames, "ring": ring, "packs": True},
        "sched": switches_kept(ring),
    }


def _refuse_without_tracer(collectors: list[Collector]) -> None:
    """Raise `TargetError`, before anything is started, if no GIL can be traced here and that was not left out."""
    from giltrace.collectors.gil import GilCollector

    for collector in collectors:
        if isinstance(collector, GilCollector):
            collector.refuse()


def _collectors(
    target: Target,
    also: list[str],
    without: list[str],
    *,
    light: bool,
    ring: bool,
    settings: dict[str, dict[str, int]],
) -> list[Collector]:
    from giltrace.collectors import LIGHT, NAMES, USUAL, choose

    if ring and (endless := [name for name in NAMES if name in also and name not in LIGHT]):
        raise UsageError(f"--ring cannot go with {endless[0]}, whose files only grow", "drop one of the two")
    # The bundled workloads are small, and made to show what there is.
    usual = NAMES if target.bundled else USUAL
    return choose(LIGHT if light or ring else usual, also=also, without=without, settings=settings)


def _sizes(ring: str, max_size: str) -> tuple[int, int]:
    """How many bytes a process's ring has (0: none), and how many a recording may take (0: any)."""
    size, most = ring_size(ring), parse_size(max_size, "--max-size") if max_size else 0
    if max_size and size:
        raise UsageError("--max-size is not for a ring", "that takes what --ring says")
    if max_size and most < 1 << 20:
        raise UsageError(f"--max-size {max_size} is too small", "give 1MiB or more")
    return size, most

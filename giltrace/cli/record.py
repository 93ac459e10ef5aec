"""`giltrace record`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from giltrace.cli.options import DumpOn, Force, MaxDumps, Output, Python, Ring, StackDepth
from giltrace.cli.outcome import exit_like, outputs, show
from giltrace.cli.values import parse_rule, parse_size

if TYPE_CHECKING:
    from giltrace.collectors.base import Collector


def record(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[--] SCRIPT|WORKLOAD|COMMAND [ARGS]...", help="What to run.", show_default=False),
    ] = None,
    module: Annotated[str | None, typer.Option("-m", metavar="MODULE", help="Run a module, like python -m.")] = None,
    code: Annotated[str | None, typer.Option("-c", metavar="CODE", help="Run a string, like python -c.")] = None,
    output: Output = None,
    force: Force = False,
    light: Annotated[bool, typer.Option("--light", help="Exact GIL events and core switches only.")] = False,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="COLLECTOR", help="Leave out gil, sched, py-spy or viztracer; repeatable."),
    ] = None,
    stacks: Annotated[
        StackDepth, typer.Option("--stacks", help="Python stacks at each hand-over of the GIL.")
    ] = StackDepth.full,
    ring: Ring = "",
    dump_on: DumpOn = None,
    max_dumps: MaxDumps = 10,
    python: Python = None,
) -> None:
    """Run a Python program and record who held the GIL, on which core, and who waited.

    \b
    giltrace record app.py --its options       a script, its arguments after it
    giltrace record -m http.server 8000        a module
    giltrace record -c "import this"           a string
    giltrace record cpu_bound                  a bundled workload (see `giltrace workloads`)
    giltrace record -- gunicorn -w2 app:app    any command: every Python process below it is traced

    The result is NAME.giltrace, the recording, and NAME.pftrace, for the Perfetto UI; a summary goes to stderr.
    The program's input, output, signals and exit status are its own. Options of giltrace come before the target.

    By default the program also runs under py-spy and viztracer; the latter slows code that makes many calls. With
    --light it runs at almost full speed.

    A flight recorder, for what happens once a day: --ring keeps the newest events only (and implies --light), and each
    --dump-on, or `giltrace dump PID`, writes them out as NAME-1.giltrace, NAME-2.giltrace and so on.
    """
    from giltrace.collectors import choose
    from giltrace.launch.recorder import record as run
    from giltrace.launch.target import resolve

    target = resolve(words or [], module=module, code=code, python=python)
    size = _ring_size(ring)
    settings: dict[str, dict[str, int]] = {
        "gil": {"depth": stacks.frames, "ring": size},
        # A hand-over of the GIL takes three times as much room there, shared by the cores.
        "sched": {"ring": 4 * size // (os.cpu_count() or 1)},
    }
    # What py-spy and viztracer write has no end.
    collectors = choose(light=light or size > 0, without=without or [], settings=settings)
    collectors += _flight_recorder(size, dump_on or [], max_dumps)
    folder, trace = outputs(output if output is not None else Path(target.name), force=force)
    status = run(target, folder, collectors, force=force)
    try:
        show(folder, trace)
    except KeyboardInterrupt:
        print(f"giltrace: interrupted while writing {trace}; the recording {folder} is complete", file=sys.stderr)
        raise typer.Exit(130) from None
    exit_like(status)


def _ring_size(text: str) -> int:
    size = parse_size(text) if text else 0
    if text and size < 1 << 20:
        from giltrace.errors import UsageError

        raise UsageError(f"a ring of {text} is too small", "give --ring 1MiB or more; 64MiB hold some 8 million events")
    return size


def _flight_recorder(ring: int, rules: list[str], most: int) -> list[Collector]:
    if not ring:
        if rules:
            from giltrace.errors import UsageError

            raise UsageError("--dump-on needs a ring to dump", "add --ring 64MiB")
        return []
    from giltrace.collectors.flight import FlightRecorder

    def announce(what: str) -> None:
        print(f"giltrace: {what}", file=sys.stderr, flush=True)

    return [FlightRecorder([parse_rule(text) for text in rules], most, announce)]

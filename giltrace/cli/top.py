"""`giltrace top`."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from giltrace.cli.completion.candidates import files, live_targets
from giltrace.cli.options import Code, Module, Python
from giltrace.cli.outcome import need_force, tell_printed
from giltrace.cli.parsing import named_pid
from giltrace.cli.values import Mistyped, parse_duration, parse_length

if TYPE_CHECKING:
    from giltrace.launch.target import Target
    from giltrace.views.ending import Ending
    from giltrace.views.top.source import Source


def top(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PID | [--] SCRIPT|WORKLOAD|COMMAND [ARGS]...",
            help="What to look at: a process that runs, or what to run.",
            show_default=False,
            autocompletion=live_targets,
        ),
    ] = None,
    module: Module = None,
    code: Code = None,
    observe: Annotated[
        bool, typer.Option("--observe", help="With PID: look from outside only, sampled; nothing in it is touched.")
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", "--batch", help="Print one snapshot as text and exit, for a pipe or a log.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Like --once, as JSON.")] = False,
    duration: Annotated[
        str, typer.Option("--duration", "-d", metavar="TIME", help="With --once: how long to look, like 5s.")
    ] = "5s",
    interval: Annotated[str, typer.Option("--interval", metavar="TIME", help="Time between refreshes.")] = "1s",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            help="Write what the command prints here. [default: its last lines are shown at the end]",
            autocompletion=files,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace a file of the name of --output.")] = False,
    python: Python = None,
) -> None:
    """Show live who holds the GIL, who waits for it, and which lines make them wait.

    \b
    giltrace top 4242                       a process that runs: exact
    giltrace top --observe 4242             from outside: sampled, not touched
    giltrace top app.py --its options       a script, its arguments after it
    giltrace top -- gunicorn -w2 app:app    any command, as with `giltrace record`
    giltrace top --once -d 10s 4242         one snapshot over ten seconds, as text
    giltrace top --json app.py | jq .held   the same for programs

    Press h for the keys. A command that top started is ended with it; it gets no input, and what it prints is kept
    from the screen.
    """
    if once or as_json:
        show = partial(_show_once, seconds=parse_length(duration, "--duration") / 1e9, as_json=as_json)
    else:
        seconds = parse_duration(interval, "--interval", unit="s") / 1e9
        if not 0.1 <= seconds <= 2:
            raise Mistyped(f"{interval!r} is no time between refreshes", "give 100ms to 2s", "--interval")
        show = partial(_show, interval=seconds)
    if output is not None:
        need_force(output, force=force, option="--output")
    from giltrace.views.ending import Ending

    pid = named_pid(words or [], module=module, code=code)
    with Ending() as ending:
        if pid is not None:
            with _source(pid, observe) as source:
                show(source, pid, ending)
        else:
            target = _target(words or [], module, code, python, observe)
            _launch(target, output, partial(show, ending=ending))
    if ending.signal is not None and (once or as_json or ending.signal != signal.SIGINT):
        raise typer.Exit(128 + ending.signal)


def _target(words: list[str], module: str | None, code: str | None, python: str | None, observe: bool) -> Target:
    """What to start. Raises `UsageError` if that is nothing, or should be observed."""
    from giltrace.errors import UsageError
    from giltrace.launch.target import resolve

    if observe:
        raise UsageError("--observe looks at a process that runs already", "give its PID, or leave --observe out")
    if not words and module is None and code is None:
        usage = "give a PID, a script or a command: `giltrace top 4242`, `giltrace top app.py`"
        raise UsageError("nothing to look at", usage)
    return resolve(words, module=module, code=code, python=python)


def _launch(target: Target, output: Path | None, show: Callable[..., None]) -> None:
    from giltrace.launch.live import Output, launched

    printed = Output(output)
    try:
        with launched(target, printed) as source:
            show(source, None)
    finally:
        tell_printed(printed)


def _source(pid: int, observe: bool) -> AbstractContextManager[Source]:
    """What yields a recording of the process that is being written: the one that somebody makes, else our own."""
    from giltrace.launch.live import attached, followed, observed
    from giltrace.recording.locate import being_written

    if observe:
        return observed(pid)
    written = being_written(pid)
    return attached(pid) if written is None else followed(pid, written)


def _show(source: Source, pid: int | None, ending: Ending, *, interval: float) -> None:
    from giltrace.views.top.look import look

    look(source, pid, ending, interval)


def _show_once(source: Source, pid: int | None, ending: Ending, *, seconds: float, as_json: bool) -> None:
    from giltrace.views.top.look import look_once

    look_once(source, pid, ending, seconds, as_json=as_json)

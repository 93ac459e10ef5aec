"""`giltrace record`."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from giltrace.cli.options import Python, StackDepth


def record(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[--] SCRIPT|WORKLOAD|COMMAND [ARGS]...", show_default=False),
    ] = None,
    module: Annotated[str | None, typer.Option("-m", metavar="MODULE", help="Run a module, like python -m.")] = None,
    code: Annotated[str | None, typer.Option("-c", metavar="CODE", help="Run a string, like python -c.")] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="NAME", help="Write NAME.giltrace and NAME.pftrace. [default: by target]"
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an earlier recording of that name.")] = False,
    light: Annotated[bool, typer.Option("--light", help="Exact GIL events and core switches only.")] = False,
    without: Annotated[
        list[str] | None,
        typer.Option("--without", metavar="COLLECTOR", help="Leave out gil, sched, py-spy or viztracer; repeatable."),
    ] = None,
    stacks: Annotated[
        StackDepth, typer.Option("--stacks", help="Python stacks at each hand-over of the GIL.")
    ] = StackDepth.full,
    native: Annotated[
        bool, typer.Option("--native", help="Name the C functions of hogs: py-spy pauses the program at each sample.")
    ] = False,
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
    """
    from giltrace.collectors import choose
    from giltrace.launch.recorder import record as run
    from giltrace.launch.target import resolve

    target = resolve(words or [], module=module, code=code, python=python)
    name = output if output is not None else Path(target.name)
    name = name.with_name(name.name.removesuffix(".giltrace").removesuffix(".pftrace"))
    folder, trace = name.with_name(name.name + ".giltrace"), name.with_name(name.name + ".pftrace")
    if trace.exists() and not force:
        from giltrace.errors import OutputError

        raise OutputError(f"{trace} exists", "choose another name with -o, or replace it with --force")
    settings: dict[str, dict[str, int]] = {"gil": {"depth": stacks.frames}, "py-spy": {"native": native}}
    collectors = choose(light=light, without=without or [], settings=settings)
    if native and all(collector.name != "py-spy" for collector in collectors):
        from giltrace.errors import UsageError

        raise UsageError("--native needs py-spy, which this command leaves out", "drop --light or --without py-spy")
    status = run(target, folder, collectors, force=force)
    try:
        _show(folder, trace)
    except KeyboardInterrupt:
        print(f"giltrace: interrupted while writing {trace}; the recording {folder} is complete", file=sys.stderr)
        raise typer.Exit(130) from None
    _exit_like(status)


def _show(folder: Path, trace: Path) -> None:
    from rich.console import Console

    from giltrace.analysis.summary import summarise
    from giltrace.exporters.perfetto import write
    from giltrace.reports.summary import print_summary
    from giltrace.timeline.load import load

    timeline = load(folder)
    write(timeline, trace)
    console = Console(stderr=True)
    print_summary(summarise(timeline), console)
    console.print(
        f"recording {folder}\ntrace     {trace}  (open it in the Perfetto UI)", highlight=False, soft_wrap=True
    )


def _exit_like(status: int) -> None:
    """End as the target did: by the same signal, or with the same status."""
    if status < 0:
        sys.stdout.flush()
        sys.stderr.flush()
        import resource

        # The target has dumped core if it was to; ours would only be in the way.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if -status != signal.SIGKILL:  # which has no handler to reset
            signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    raise typer.Exit(status)

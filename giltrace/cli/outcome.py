"""What all commands that record do before and after it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import typer


def outputs(name: Path, *, force: bool) -> tuple[Path, Path]:
    """Return the recording's folder and the trace that `name` means; raises `OutputError` if the trace is there."""
    name = name.with_name(name.name.removesuffix(".giltrace").removesuffix(".pftrace"))
    trace = name.with_name(name.name + ".pftrace")
    need_force(trace, force=force)
    return name.with_name(name.name + ".giltrace"), trace


def need_force(path: Path, *, force: bool, option: str = "-o") -> None:
    """Raise `OutputError` if writing `path` would replace a file, or what is in a folder, and `force` is not given.

    `option` is the one that names another place.
    """
    from giltrace.errors import OutputError

    try:
        taken = path.is_file() or (path.is_dir() and any(path.iterdir()))
    except OSError as error:
        raise OutputError(f"cannot look at {path}: {error.strerror}", f"choose another place with {option}") from None
    if taken and not force:
        raise OutputError(f"{path} exists", f"choose another name with {option}, or replace it with --force")


def show(folder: Path, trace: Path) -> None:
    """Export the finished recording `folder` to `trace`, and print its summary to stderr."""
    from rich.console import Console
    from rich.text import Text

    from giltrace.analysis.summary import summarise
    from giltrace.cli.loading import load
    from giltrace.exporters.perfetto.trace import write
    from giltrace.reports.summary import print_summary
    from giltrace.text import visible

    timeline = load(folder)
    write(timeline, trace)
    console = Console(stderr=True)
    print_summary(summarise(timeline), console)
    for what, place, use in (("recording", folder, ""), ("trace    ", trace, "  (open it in the Perfetto UI)")):
        console.print(Text(f"{what} {visible(str(place))}{use}"), soft_wrap=True)


def exit_like(status: int) -> None:
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

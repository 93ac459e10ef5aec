"""`giltrace report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from giltrace.cli.outcome import need_force
from giltrace.errors import UsageError
from giltrace.text import visible

if TYPE_CHECKING:
    from giltrace.analysis.results import Report
    from giltrace.timeline.model import Timeline


def report(
    name: Annotated[
        Path, typer.Argument(metavar="NAME", help="The recording: NAME or NAME.giltrace.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead.")] = False,
    html: Annotated[
        Path | None,
        typer.Option("--html", metavar="FILE", help="Write a page for a browser that works offline; - is stdout."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an earlier page of that name.")] = False,
    process: Annotated[int | None, typer.Option("--process", metavar="PID", help="Only this process.")] = None,
    lines: Annotated[bool, typer.Option("--lines", help="A row for each pair of lines, not of functions.")] = False,
    library: Annotated[
        bool, typer.Option("--library", help="By lines, with the calls from each into the libraries.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All rows and processes, not only the largest.")] = False,
) -> None:
    """Say what a recording means: the verdict, what the GIL cost, and which line made which line wait.

    \b
    giltrace report slow                       on the terminal
    giltrace report slow --html slow.html      one file for a browser, with the timeline
    giltrace report slow --json                for programs
    giltrace report slow --lines               line by line instead of function by function

    In this order: the verdict with its evidence and advice; the waited time and where it went; victims and culprits,
    largest first; what would change without a GIL; how good the measurement is.

    Lines are yours: of each stack the innermost one that is in neither the standard library nor an installed package.
    What it led to there follows in brackets.
    """
    from giltrace.analysis.report import analyse
    from giltrace.cli.loading import load
    from giltrace.recording.locate import locate

    piped = html == Path("-")
    if piped and as_json:
        raise UsageError("--html - and --json both print on stdout", "give --html a file, or leave one out")
    if html is not None and not piped:
        need_force(html, force=force, option="--html")
    folder = locate(name)
    timeline = load(folder)
    if process is not None:
        timeline = _only(timeline, process)
    told = analyse(timeline)
    if html is not None:
        from giltrace.reports.html import write_html

        write_html(timeline, told, html, folder.name.removesuffix(".giltrace"))
        if not piped:
            print(f"giltrace: wrote {visible(str(html))}", file=sys.stderr)
    if as_json:
        from giltrace.reports.json import to_json

        print(to_json(told))
    elif html is None:
        _print(told, lines=lines or library, library=library, everything=everything)


def _only(timeline: Timeline, pid: int) -> Timeline:
    """The timeline with the processes of this `pid` alone: several if it executed another interpreter."""
    import dataclasses

    chosen = tuple(one for one in timeline.processes if one.pid == pid)
    if not chosen:
        known = ", ".join(dict.fromkeys(str(one.pid) for one in timeline.processes)) or "none"
        raise UsageError(f"the recording has no process {pid}", f"processes with Python: {known}")
    return dataclasses.replace(timeline, processes=chosen)


def _print(told: Report, *, lines: bool, library: bool, everything: bool) -> None:
    from rich.console import Console

    from giltrace.reports.blame import Detail
    from giltrace.reports.terminal import print_report

    print_report(told, Console(), Detail(lines, library, everything))

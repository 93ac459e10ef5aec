"""`giltrace report`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from giltrace.cli.completion.candidates import files
from giltrace.cli.options import After, Own, Processes, Recording, Roles, Threads, Window
from giltrace.cli.outcome import need_force
from giltrace.cli.pager import NoPager, paged
from giltrace.cli.progress import working
from giltrace.errors import UsageError
from giltrace.text import visible

_Html = Annotated[
    Path | None,
    typer.Option(
        "--html",
        metavar="FILE",
        help="Write a page for a browser that works offline; - is stdout.",
        autocompletion=files,
    ),
]
_Everything = Annotated[
    bool, typer.Option("--all", help="All rows, processes and threads, each by itself, not only the largest.")
]


def report(
    name: Recording,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON instead.")] = False,
    html: _Html = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an earlier page of that name.")] = False,
    window: Window = None,
    after: After = None,
    process: Processes = None,
    thread: Threads = None,
    role: Roles = None,
    own: Own = None,
    lines: Annotated[bool, typer.Option("--lines", help="A row for each pair of lines, not of functions.")] = False,
    library: Annotated[
        bool, typer.Option("--library", help="By lines, with the calls from each into the libraries.")
    ] = False,
    everything: _Everything = False,
    no_pager: NoPager = False,
) -> None:
    """Say what a recording means: the verdict, what the GIL cost, and which line made which line wait.

    \b
    giltrace report slow                       on the terminal
    giltrace report slow --html slow.html      a page, with the timeline
    giltrace report slow --json                for programs
    giltrace report slow --lines               by line instead of by function
    giltrace report slow --role 'io-*'         what these threads lost, to whom

    In this order: the verdict with its evidence and advice; the waited time and where it went; victims and culprits,
    largest first; what would change without a GIL; how good the measurement is.

    Lines are yours: of each stack the innermost one that is in neither the standard library nor an installed package.
    What it led to there follows in brackets. With --own, they are yours that are in files below its paths.

    --window and --after: all figures are of that time, and shares of its length. --thread and --role: threads, waits
    and victims are the chosen ones, whoever made them wait; verdicts, GILs and the bound are of whole processes.
    """
    from giltrace.analysis.report import analyse
    from giltrace.analysis.selection import Selection, select
    from giltrace.cli.loading import load
    from giltrace.recording.locate import locate

    selection = Selection.of(window=window, after=after, process=process, thread=thread, role=role, own=own)
    piped = html == Path("-")
    if piped and as_json:
        raise UsageError("--html - and --json both print on stdout", "give --html a file, or leave one out")
    if html is not None and not piped:
        need_force(html, force=force, option="--html")
    folder = locate(name)
    with working(f"analysing {folder}"):
        (timeline,) = select([load(folder, selection)], selection)
        told = analyse(timeline)
        if html is not None:
            from giltrace.reports.html import write_html

            write_html(timeline, told, html, folder.name.removesuffix(".giltrace"))
    if html is not None and not piped:
        print(f"giltrace: wrote {visible(str(html))}", file=sys.stderr)
    if as_json:
        from giltrace.reports.json import to_json

        print(to_json(told))
    elif html is None:
        from giltrace.reports.blame import Detail
        from giltrace.reports.terminal import print_report

        with paged(no_pager=no_pager) as console:
            print_report(told, console, Detail(lines or library, library, everything))

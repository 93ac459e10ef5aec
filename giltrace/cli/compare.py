"""`giltrace compare`."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from giltrace.cli.completion.candidates import recordings
from giltrace.cli.options import After, Own, Processes, Roles, Threads, Window, chosen
from giltrace.cli.pager import NoPager, paged
from giltrace.cli.progress import working


class Format(str, Enum):
    """How the comparison is printed."""

    text = "text"
    json = "json"
    markdown = "markdown"


class FailOn(str, Enum):
    """What makes the exit status 1: properties of a `Comparison`."""

    worse = "worse"
    changed = "changed"


def compare(
    first: Annotated[
        Path,
        typer.Argument(metavar="BEFORE", help="The first recording.", show_default=False, autocompletion=recordings),
    ],
    second: Annotated[
        Path,
        typer.Argument(metavar="AFTER", help="The second recording.", show_default=False, autocompletion=recordings),
    ],
    window: Window = None,
    after: After = None,
    process: Processes = None,
    thread: Threads = None,
    role: Roles = None,
    own: Own = None,
    everything: Annotated[bool, typer.Option("--all", help="Also print what did not change.")] = False,
    no_pager: NoPager = False,
    form: Annotated[
        Format | None, typer.Option("--format", help="How to print it. [default: text]", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    fail_on: Annotated[
        FailOn | None, typer.Option("--fail-on", help="End with exit status 1 if it is so.", show_default=False)
    ] = None,
) -> None:
    """Say what changed beyond noise between two recordings, per role of threads and per culprit.

    \b
    giltrace compare out/before out/after
    giltrace compare out/before out/after --after 10   without the start-up
    giltrace compare out/main out/branch --fail-on worse   for CI: status 1
    giltrace compare out/main out/branch --format markdown > comment.md

    The first line says how long the second took if both are whole runs of a program, what waits are lost to now and
    were not before ("new") or are no more ("gone"), or that more or less is lost in all.

    A role is all threads whose names differ in their numbers only (cpu-0 and cpu-1 are cpu-*), a culprit is a function
    that held the GIL while others waited. A figure has changed if the difference is larger than the figures' own
    variation within the recordings explains, at 99.9% confidence, and is 2 points of a share or 10% of a time or rate.

    Both recordings are cut to the same part, each from its own start. With --thread and --role, roles are of the chosen
    threads and culprits cost what these waited.

    Worse is where more time is lost to the GIL beyond noise, in all or by a role (unless less is lost in all), or a
    whole run takes 1.5 times as long. The exit status is 0 otherwise, and 2 if nothing could be compared.
    """
    from giltrace.analysis.compare.compare import compare as run
    from giltrace.analysis.selection import Selection, select
    from giltrace.cli.loading import load
    from giltrace.recording.locate import locate
    from giltrace.reports.compare import as_json as json_of
    from giltrace.reports.compare import markdown, print_comparison

    form = chosen(form, Format, as_json=as_json)
    selection = Selection.of(window=window, after=after, process=process, thread=thread, role=role, own=own)
    folders = locate(first), locate(second)
    names = str(folders[0]), str(folders[1])
    with working("comparing"):
        old, new = select([load(folder, selection) for folder in folders], selection)
        found = run(old, new)
    if form is Format.json:
        print(json_of(found, names))
    elif form is Format.markdown:
        print(*markdown(found, names, everything=everything), sep="\n")
    else:
        with paged(no_pager=no_pager) as console:
            print_comparison(found, names, console, everything=everything)
    if fail_on is not None and (found.worse if fail_on is FailOn.worse else found.changed):
        raise typer.Exit(1)

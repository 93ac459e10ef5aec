"""`giltrace compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from giltrace.cli.options import After, Own, Processes, Roles, Threads, Window


def compare(
    first: Annotated[Path, typer.Argument(metavar="BEFORE", help="The first recording.", show_default=False)],
    second: Annotated[Path, typer.Argument(metavar="AFTER", help="The second recording.", show_default=False)],
    window: Window = None,
    after: After = None,
    process: Processes = None,
    thread: Threads = None,
    role: Roles = None,
    own: Own = None,
    everything: Annotated[bool, typer.Option("--all", help="Also print what did not change.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what changed beyond noise between two recordings, per role of threads and per culprit.

    \b
    giltrace compare out/before out/after
    giltrace compare out/before out/after --after 10 --thread 'io-*'    without the start-up, what these threads lost

    A role is all threads whose names differ in their numbers only (cpu-0 and cpu-1 are cpu-*), a culprit is a function
    that held the GIL while others waited. A figure has changed if the difference is larger than the figures' own
    variation within the recordings explains, at 99.9% confidence, and is 2 points of a share or 10% of a time or rate.

    Both recordings are cut to the same part, each from its own start. With --thread and --role, roles are of the chosen
    threads and culprits cost what these waited.
    """
    from giltrace.analysis.compare.compare import compare as run
    from giltrace.analysis.selection import Selection, select
    from giltrace.cli.loading import load
    from giltrace.recording.locate import locate
    from giltrace.reports.compare import as_json as json_of
    from giltrace.reports.compare import print_comparison
    from giltrace.reports.console import console

    selection = Selection.of(window=window, after=after, process=process, thread=thread, role=role, own=own)
    folders = locate(first), locate(second)
    names = str(folders[0]), str(folders[1])
    old, new = select([load(folder) for folder in folders], selection)
    found = run(old, new)
    if as_json:
        print(json_of(found, names))
    else:
        print_comparison(found, names, console(), everything=everything)

"""`giltrace compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE", help="The first recording.", show_default=False)],
    after: Annotated[Path, typer.Argument(metavar="AFTER", help="The second recording.", show_default=False)],
    everything: Annotated[bool, typer.Option("--all", help="Also print what did not change.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what changed beyond noise between two recordings, per role of threads and per culprit.

    \b
    giltrace compare out/before out/after

    A role is all threads whose names differ in their numbers only (cpu-0 and cpu-1 are cpu-*), a culprit is a function
    that held the GIL while others waited. A figure has changed if the difference is larger than the figures' own
    variation within the recordings explains, at 99.9% confidence, and is 2 points of a share or 10% of a time or rate.
    """
    from rich.console import Console

    from giltrace.analysis.compare.compare import compare as run
    from giltrace.cli.loading import load
    from giltrace.recording.locate import locate
    from giltrace.reports.compare import as_json as json_of
    from giltrace.reports.compare import print_comparison

    folders = locate(before), locate(after)
    names = str(folders[0]), str(folders[1])
    found = run(load(folders[0]), load(folders[1]))
    if as_json:
        print(json_of(found, names))
    else:
        print_comparison(found, names, Console(), everything=everything)

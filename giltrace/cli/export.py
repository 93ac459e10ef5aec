"""`giltrace export`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from giltrace.cli.completion.candidates import files, one_of
from giltrace.cli.options import After, Everything, Own, Processes, Recording, Roles, Threads, TopWaits, Window
from giltrace.cli.outcome import need_force
from giltrace.cli.progress import working
from giltrace.errors import UsageError
from giltrace.exporters import EXPORTERS, Exporter, find
from giltrace.text import visible

if TYPE_CHECKING:
    from giltrace.analysis.selection import Selection
    from giltrace.timeline.model import Timeline

FORMATS = tuple(one.name for one in EXPORTERS)
#: The values of each option that a format has.
VALUES = {option: values for one in EXPORTERS for option, values in one.options.items()}


def _choice(option: str, names: Sequence[str], text: str, metavar: str = "") -> Any:
    return typer.Option(
        option, metavar=metavar or "|".join(names), help=text, show_default=False, autocompletion=one_of(*names)
    )


_To = Annotated[str, _choice("--to", FORMATS, "The format.")]
_Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="FILE",
        help="Where to; - is stdout. [default: by NAME and format]",
        autocompletion=files,
    ),
]
_Table = Annotated[str, _choice("--table", VALUES["table"], "csv, parquet: only this table.", "TABLE")]
_What = Annotated[str, _choice("--what", VALUES["what"], "collapsed: time spent how.")]
_By = Annotated[str, _choice("--by", VALUES["by"], "collapsed: by whose stacks.")]


def export(
    name: Recording,
    to: _To,
    output: _Output = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an earlier export of that name.")] = False,
    table: _Table = "",
    what: _What = "",
    by: _By = "",
    window: Window = None,
    after: After = None,
    top_waits: TopWaits = None,
    everything: Everything = False,
    process: Processes = None,
    thread: Threads = None,
    role: Roles = None,
    own: Own = None,
) -> None:
    """Write a recording in the format of another tool.

    \b
    giltrace export slow --to firefox                    for profiler.firefox.com
    giltrace export slow --to parquet                    for DuckDB, Polars, Dask
    giltrace export slow --to csv --table waits -o -     one table, on stdout
    giltrace export slow --to collapsed --by culprit     lines waited for, folded
    giltrace export slow --to perfetto --top-waits 50    a trace cut to its waits
    giltrace export slow --to perfetto --all             a trace of any size

    A trace for perfetto has at most 100 MB: of what is larger it has all events where threads lost most to the GIL, and
    elsewhere what each thread did in steps, and says so. --all writes every event, --window and --top-waits a part's.

    docs/formats.md says what each format carries and what it loses.

    --window and --after cut off what reaches out of that time, so that sums are right; in perfetto it stays whole, to
    be looked at, and several may be given. --thread and --role write the rows of these threads, with their culprits,
    whoever these are; for perfetto they choose the waits of --top-waits.
    """
    from giltrace.analysis.selection import Selection
    from giltrace.cli.loading import load, load_outline, require_something
    from giltrace.recording.locate import locate

    exporter, options = _chosen(to, table=table, what=what, by=by)
    if everything:
        if to != "perfetto":
            raise UsageError(f"--all is not for {to}", "that is written as a whole in any case")
        options["whole"] = "yes"
    if own:
        raise UsageError("--own is not for export", "what it writes has whole stacks; report and compare take it")
    selection = Selection.of(window=window, after=after, process=process, thread=thread, role=role)
    _refuse(to, selection, top_waits)
    folder = locate(name)
    piped = output == Path("-")
    if piped and exporter.makes_folder(**options):
        raise UsageError(f"{to} is a folder of several tables", "name one of them for stdout: --table waits")
    path = output or exporter.path(folder.with_name(folder.name.removesuffix(".giltrace")), **options)
    if not piped:
        need_force(path, force=force)
    # What goes to a terminal would get in the way of the line that tells how it goes.
    with contextlib.nullcontext() if piped else working(f"writing {path}"):
        in_windows = exporter.makes_folder(**options) and not selection.windows
        timeline = (load_outline(folder) if in_windows else None) or load(
            folder, selection, top_waits, every=to != "perfetto" or everything
        )
        require_something(timeline, folder)
        told = exporter.write(_part(timeline, to, selection, top_waits), path, **options)
    if not piped:
        print(f"giltrace: wrote {visible(str(path))}", file=sys.stderr)
    if told:
        from giltrace.exporters.perfetto.thinning import OR_A_PART

        print(f"giltrace: {told}; --all {OR_A_PART}", file=sys.stderr)


def _refuse(to: str, selection: Selection, top_waits: int | None) -> None:
    if to != "perfetto" and top_waits is not None:
        raise UsageError(f"--top-waits is not for {to}", "it is an option of perfetto; --window is for all formats")
    if to == "perfetto" and selection.of_threads and top_waits is None:
        raise UsageError(
            "a trace has all threads, as each may be the culprit",
            "--thread and --role choose the waits of --top-waits; other formats have the rows of some threads",
        )


def _part(timeline: Timeline, to: str, selection: Selection, top_waits: int | None) -> Timeline:
    from giltrace.analysis.selection import narrow, select

    return narrow(timeline, selection, top_waits) if to == "perfetto" else select([timeline], selection)[0]


def _chosen(to: str, **given: str) -> tuple[Exporter, dict[str, str]]:
    """The format and those of its options that were given, each with a value that it knows."""
    exporter = find(to)
    if exporter is None:
        raise UsageError(f"there is no format {to!r}", f"one of {', '.join(FORMATS)}")
    options = {option: value for option, value in given.items() if value}
    for option, value in options.items():
        if option not in exporter.options:
            users = " and ".join(one.name for one in EXPORTERS if option in one.options)
            raise UsageError(f"--{option} is not for {to}", f"it is an option of {users}")
        if value not in VALUES[option]:
            raise UsageError(f"there is no --{option} {value!r}", f"one of {', '.join(VALUES[option])}")
    return exporter, options

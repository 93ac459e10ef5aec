"""Options that several commands share."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from giltrace.cli.completion.candidates import files, one_of, recordings, traces
from giltrace.collectors import NAMES
from giltrace.collectors.rules import EXAMPLES
from giltrace.errors import UsageError

FormatOf = TypeVar("FormatOf", bound=Enum)

Module = Annotated[str | None, typer.Option("-m", metavar="MODULE", help="Run a module, like python -m.")]
Code = Annotated[str | None, typer.Option("-c", metavar="CODE", help="Run a string, like python -c.")]
Recording = Annotated[
    Path,
    typer.Argument(
        metavar="NAME", help="The recording: NAME or NAME.giltrace.", show_default=False, autocompletion=recordings
    ),
]
RecordingOrTrace = Annotated[
    Path,
    typer.Argument(
        metavar="NAME", help="The recording, or a .pftrace file.", show_default=False, autocompletion=traces
    ),
]

# Which part of a recording is asked about, in the same words everywhere: `giltrace.analysis.selection` gives them their
# meaning. A command that cannot do it for an option says so.
Window = Annotated[
    list[str] | None,
    typer.Option(
        "--window",
        metavar="A..B",
        help="Only this time, in seconds from the start or with a unit: 1.5..2, 1.5s.., ..200ms.",
        show_default=False,
    ),
]
After = Annotated[
    str | None,
    typer.Option("--after", metavar="T", help="Only from this time on: --window T.. in short.", show_default=False),
]
Processes = Annotated[
    list[str] | None,
    typer.Option(
        "--process",
        metavar="PID|GLOB",
        help="Only processes of this pid, or whose command line, script or program fits; repeatable.",
        show_default=False,
    ),
]
Threads = Annotated[
    list[str] | None,
    typer.Option(
        "--thread",
        metavar="GLOB",
        help="What threads of such a name waited and held; all others stay possible culprits; repeatable.",
        show_default=False,
    ),
]
Roles = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        metavar="GLOB",
        help="The same for threads of such a role: worker-* are all whose names differ in their number; repeatable.",
        show_default=False,
    ),
]
Own = Annotated[
    list[str] | None,
    typer.Option(
        "--own",
        metavar="PATH",
        help="What is below this path is your own code, and all else a library's; repeatable.",
        show_default=False,
        autocompletion=files,
    ),
]
TopWaits = Annotated[
    int | None,
    typer.Option(
        "--top-waits",
        metavar="N",
        min=1,
        help="Keep only what happened around the N longest waits.",
        show_default=False,
    ),
]
Everything = Annotated[
    bool,
    typer.Option("--all", help="Every event, however large the trace: by default 100 MB, thinned where that is less."),
]

Python = Annotated[
    str | None,
    typer.Option(
        "--python",
        metavar="PATH",
        help="Interpreter for scripts, modules and code. [default: the active environment's, else giltrace's own]",
        autocompletion=files,
    ),
]

Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        metavar="NAME",
        help="Write NAME.giltrace and NAME.pftrace. [default: the target's, or attach-PID; numbered if taken]",
        autocompletion=files,
    ),
]

Force = Annotated[bool, typer.Option("--force", "-f", help="Replace an earlier recording of that name.")]

NoTrace = Annotated[bool, typer.Option("--no-trace", help="Leave NAME.pftrace out: `giltrace export` makes it later.")]

Light = Annotated[bool, typer.Option("--light", help="Exact GIL events and core switches only.")]

Spans = Annotated[
    bool, typer.Option("--spans", help="Also every function call, by viztracer: --with viztracer in short.")
]

With = Annotated[
    list[str] | None,
    typer.Option(
        "--with",
        metavar="COLLECTOR",
        help="Also gil, sched, py-spy or viztracer; repeatable.",
        autocompletion=one_of(*NAMES),
    ),
]

Without = Annotated[
    list[str] | None,
    typer.Option(
        "--without",
        metavar="COLLECTOR",
        help="Leave out gil, sched, py-spy or viztracer; repeatable.",
        autocompletion=one_of(*NAMES),
    ),
]

Ring = Annotated[
    str,
    typer.Option(
        "--ring",
        metavar="SIZE",
        help="Keep only the newest events of each process, in SIZE, like 64MiB; implies --light.",
    ),
]

MaxSize = Annotated[
    str,
    typer.Option(
        "--max-size",
        metavar="SIZE",
        help="End the recording, not the program, when it has SIZE on disk, like 2GB.",
    ),
]

DumpOn = Annotated[
    list[str] | None,
    typer.Option(
        "--dump-on",
        metavar="RULE",
        help="With --ring: dump on stall>100ms, request>250ms, lock>50ms, wait>50ms, hold>100ms, held>95%/5s, "
        "deadlock or USR1; repeatable.",
        autocompletion=one_of(*EXAMPLES),
    ),
]

OnDump = Annotated[
    str,
    typer.Option(
        "--on-dump",
        metavar="COMMAND",
        help="Run COMMAND on each dump, whose path replaces {}. Without a shell: sh -c '...' is one.",
        show_default=False,
    ),
]

DumpApart = Annotated[
    str,
    typer.Option(
        "--dump-apart", metavar="TIME", help="After a dump, write none for the same rule for so long. Signals do."
    ),
]

MaxDumps = Annotated[int, typer.Option("--max-dumps", metavar="N", min=1, help="Write no more dumps than this.")]


class StackDepth(str, Enum):
    """How much of a Python stack is recorded: nothing, the innermost frame, or all (up to 128 frames)."""

    none = "none"
    top = "top"
    full = "full"

    @property
    def frames(self) -> int:
        """The greatest number of frames."""
        return {StackDepth.none: 0, StackDepth.top: 1, StackDepth.full: 128}[self]


Stacks = Annotated[StackDepth, typer.Option("--stacks", help="Python stacks at each hand-over of the GIL.")]


def chosen(form: FormatOf | None, formats: type[FormatOf], *, as_json: bool) -> FormatOf:
    """The format that --format or --json asks for; text if neither does."""
    if as_json and form not in (None, formats("json")):
        raise UsageError(f"--json and --format {form.value if form else ''} are two formats", "give one of the two")
    return formats("json") if as_json else form or formats("text")

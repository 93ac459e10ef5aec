"""`giltrace merge`."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from giltrace.cli.completion.candidates import files
from giltrace.cli.options import Recording
from giltrace.cli.progress import working

if TYPE_CHECKING:
    from giltrace.merging.merge import Outcome


class Clock(str, Enum):
    """What a file's times may count."""

    monotonic = "monotonic"
    realtime = "realtime"
    boottime = "boottime"


def merge(
    name: Recording,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The other profiler's file.", show_default=False, autocompletion=files),
    ],
    clock: Annotated[
        Clock | None,
        typer.Option("--clock", help="What its times are of. [default: known or found]", show_default=False),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            "--label", metavar="WORD", help="What to call it. [default: that profiler's name]", show_default=False
        ),
    ] = None,
) -> None:
    """Put another profiler's file beside the GIL, on the same clock.

    \b
    giltrace merge train trace.json                   torch's, viztracer's, ...
    giltrace merge train other.json --clock realtime  times since 1970
    giltrace query train "select * from gil_gaps"     is the GPU's gap the GIL's?

    Its spans are kept in the recording and drawn below the GIL track of the thread that they are of, by the ids of
    process and thread; a GPU's streams, and what is of no thread on record, get tracks of their own. The analyses of
    the GIL do not change. Merging again replaces what has the same label.

    torch.profiler's, viztracer's and Tachyon's (--gecko) clocks are known, py-spy's (--threads --format chrometrace)
    and others' are found: there is one place at which the file's threads ran when it says that they did. What does not
    fit is refused. The last line states the error.
    """
    from giltrace.cli.loading import load
    from giltrace.errors import OutputError
    from giltrace.exporters.perfetto.thinning import REMEDY
    from giltrace.exporters.perfetto.trace import write
    from giltrace.merging.merge import merge as merged_into
    from giltrace.recording.folder import SUFFIX, TRACE_SUFFIX
    from giltrace.recording.locate import locate
    from giltrace.recording.merged import write_merged
    from giltrace.recording.meta import FILE, Meta

    folder = locate(name)
    timeline = load(folder)
    with working(f"reading {file}"):
        found = merged_into(file, timeline, Meta.read(folder), clock.value if clock is not None else None, label)
    try:
        write_merged(folder, found.merged)
        os.utime(folder / FILE)  # an older trace is none of this recording any more
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror}", "see that you may write there") from None
    trace = folder.with_name(folder.name.removesuffix(SUFFIX) + TRACE_SUFFIX)
    others = [one for one in timeline.merged if one.label != found.merged.label]
    timeline = replace(timeline, merged=tuple(sorted([*others, found.merged], key=lambda one: one.label)))
    with working(f"writing {trace}"):
        thinned = write(timeline, trace)
    for line in [*_told(found, folder, trace), *([f"{thinned}; {REMEDY}"] if thinned else [])]:
        print(line, file=sys.stderr)


def _told(found: Outcome, folder: Path, trace: Path) -> list[str]:
    """What became of the file, in lines."""
    from giltrace.analysis.durations import duration
    from giltrace.text import plural

    merged, alignment = found.merged, found.alignment
    where = [plural(found.threads, "thread")] if found.threads else []
    where += [plural(found.others, "track of its own", "tracks of their own")] if found.others else []
    spans = f"{len(merged.rows):,} {'span' if len(merged.rows) == 1 else 'spans'}"
    lines = [f"merged    {spans} as {merged.label}, on {' and '.join(where)}"]
    if found.outside:
        lines.append(f"left out  {plural(found.outside, 'span')} outside of the recording")
    if found.left_out:
        lines.append(f"left out  {found.left_out.replace(' left out', '')}")
    if not found.threads:
        lines.append("threads   none of its threads is on record here: is it of the same run?")
    fit = f"; {alignment.fitting} of {alignment.readings} readings fit" if alignment.readings else ""
    lines.append(f"trace     {trace}")
    lines.append(f"clock     {merged.clock}, error at most {duration(merged.clock_error_ns)}{fit}")
    return lines

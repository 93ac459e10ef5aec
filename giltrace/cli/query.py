"""`giltrace query`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from giltrace.cli.completion.candidates import files
from giltrace.cli.options import After, Processes, RecordingOrTrace, Window
from giltrace.cli.progress import working

if TYPE_CHECKING:
    from giltrace.analysis.selection import Selection
    from giltrace.timeline.model import Timeline
    from giltrace.views.subject import Subject
    from giltrace.views.trace_processor import Rows


def query(
    name: RecordingOrTrace,
    sql: Annotated[
        str | None, typer.Argument(metavar="SQL", help="What to ask. [default: a prompt]", show_default=False)
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="Read the SQL from a file.", show_default=False, autocompletion=files
        ),
    ] = None,
    window: Window = None,
    after: After = None,
    process: Processes = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Ask a recording by SQL, in Perfetto's dialect of SQLite; works offline.

    \b
    giltrace query slow "select thread, sum(dur) from gil_waits group by thread"
    giltrace query slow -f questions.sql --csv
    giltrace query slow                        a prompt; .help tells what it knows

    Besides Perfetto's tables (slice, thread, sched, thread_state, ...) there are gil_holds, gil_waits, gil_handoffs and
    gil_blame, and gil_spans and gil_gaps of what was merged. Times are ns. docs/cookbook.md answers twelve questions.

    --window and --after cut off what reaches out of that time, so that sums are right. SQL chooses threads itself:
    where thread glob 'worker-*'.
    """
    from giltrace.analysis.selection import Selection
    from giltrace.errors import UsageError
    from giltrace.views.ending import exit_when_ended
    from giltrace.views.gil_tables import GilTraceProcessor
    from giltrace.views.subject import Subject
    from giltrace.views.trace_file import thinned

    if sql is not None and file is not None:
        raise UsageError("both SQL and a file of it", "give one of the two")
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other", "give one of the two")
    asked = _read(file) if file is not None else sql
    selection = Selection.of(window=window, after=after, process=process)
    exit_when_ended(128 + signal.SIGTERM)
    subject = Subject.find(name)
    changed = _part(subject, selection, name)
    with working(f"reading {name}"), subject.as_trace(changed, whole=True) as trace:
        processor = GilTraceProcessor(trace)
        told = thinned(trace)
    if told:
        print(f"giltrace: {told}: figures are of these, the recording has them all", file=sys.stderr)

    def run(statement: str) -> None:
        with working("answering"):
            rows = processor.run(statement)
        _print(rows, as_csv, as_json)

    if asked is None and not sys.stdin.isatty():
        asked = sys.stdin.read()
    if asked is not None:
        run(asked)
        return
    from giltrace.text import visible
    from giltrace.views.prompt import prompt

    print("SQL over the recording; .help tells what there is.", file=sys.stderr)
    prompt(run, lambda text: print(visible(text, keep="\n")))


def _part(subject: Subject, selection: Selection, name: Path) -> Timeline | None:
    """What is asked about, None if that is everything."""
    from giltrace.analysis.selection import Selection, select

    with working(f"reading {name}"):
        if selection == Selection():
            subject.need_small()
            return None
        (changed,) = select([subject.need_timeline("asking about a part")], selection)
        return changed


def _read(file: Path) -> str:
    from giltrace.errors import UsageError

    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise UsageError(f"{file}: {reason}", "name a file with SQL") from None


def _print(rows: Rows, as_csv: bool, as_json: bool) -> None:
    from giltrace.reports import rows as show

    if as_csv or as_json:
        sys.stdout.write((show.as_csv if as_csv else show.as_json)(*rows))
    elif rows.columns:
        from giltrace.reports.console import console

        show.print_rows(*rows, console(highlight=False))

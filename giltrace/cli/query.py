"""`giltrace query`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from giltrace.cli.completion.candidates import files, one_of
from giltrace.cli.options import After, Processes, RecordingOrTrace, Window
from giltrace.cli.progress import working

if TYPE_CHECKING:
    from giltrace.analysis.selection import Selection
    from giltrace.timeline.model import Timeline
    from giltrace.views.prompt import Book
    from giltrace.views.subject import Subject
    from giltrace.views.trace_processor import Rows

ENGINES = ("perfetto", "duckdb")


class Engine(NamedTuple):
    """What answers, and what can be asked of it."""

    run: Callable[[str], Rows]
    book: Book


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
    engine: Annotated[
        str,
        typer.Option(
            "--engine",
            metavar="|".join(ENGINES),
            help="What answers. [default: perfetto; duckdb for a data set]",
            show_default=False,
            autocompletion=one_of(*ENGINES),
        ),
    ] = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Ask a recording by SQL, in Perfetto's dialect of SQLite; works offline.

    \b
    giltrace query slow "select thread, sum(dur) from gil_waits group by thread"
    giltrace query slow -f questions.sql --csv
    giltrace query slow                        a prompt; .help tells what it knows
    giltrace query slow --engine duckdb "..."  of any size, in DuckDB's dialect

    Besides Perfetto's tables (slice, thread, sched, ...) there are gil_holds, gil_waits, gil_handoffs, gil_blame;
    lock_waits, lock_blame; gil_spans, gil_gaps of what was merged. Times are ns. docs/cookbook.md answers questions.

    --window and --after cut off what reaches out of that time, so that sums are right. SQL chooses threads itself:
    where thread glob 'worker-*'.

    --engine duckdb asks the tables of `export --to parquet`, which may be larger than memory: those of NAME.parquet if
    that is newer than the recording, or NAME itself; else they are written for the query. It has those of the GIL
    and of locks, and holds, waits, blocks, states, runs, stacks and the other tables of docs/formats.md.
    """
    from giltrace.analysis.selection import Selection
    from giltrace.errors import UsageError

    if sql is not None and file is not None:
        raise UsageError("both SQL and a file of it", "give one of the two")
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other", "give one of the two")
    if engine not in ("", *ENGINES):
        raise UsageError(f"there is no --engine {engine!r}", f"one of {', '.join(ENGINES)}")
    asked = _read(file) if file is not None else sql
    selection = Selection.of(window=window, after=after, process=process)
    with ExitStack() as stack:
        opened = (_duckdb if engine == "duckdb" or _is_dataset(name, engine) else _perfetto)(name, selection, stack)

        def run(statement: str) -> None:
            with working("answering"):
                rows = opened.run(statement)
            _print(rows, as_csv, as_json)

        if asked is None and not sys.stdin.isatty():
            asked = sys.stdin.read()
        if asked is None:
            _prompt(run, opened.book)
        else:
            run(asked)


def _prompt(run: Callable[[str], None], book: Book) -> None:
    from giltrace.text import visible
    from giltrace.views.prompt import prompt

    print("SQL over the recording; .help tells what there is.", file=sys.stderr)
    prompt(run, lambda text: print(visible(text, keep="\n")), book)


def _perfetto(name: Path, selection: Selection, stack: ExitStack) -> Engine:
    """Load the trace of a recording, which is gone from disk then."""
    from giltrace.views.ending import exit_when_ended
    from giltrace.views.gil_tables import TABLES, GilTraceProcessor, definition
    from giltrace.views.prompt import Book
    from giltrace.views.subject import Subject
    from giltrace.views.trace_file import thinned

    exit_when_ended(128 + signal.SIGTERM)
    subject = Subject.find(name)
    changed = _part(subject, selection, name)
    with working(f"reading {name}"), subject.as_trace(changed, whole=True) as trace:
        processor = GilTraceProcessor(trace)
        told = thinned(trace)
    if told:
        print(f"giltrace: {told}: figures are of these, the recording has them all", file=sys.stderr)
    others = "Perfetto's own: slice, thread, process, sched, thread_state, counter, ..."
    return Engine(processor.run, Book({table: definition(table) for table in TABLES}, others))


def _duckdb(name: Path, selection: Selection, stack: ExitStack) -> Engine:
    """Open a data set, or that of a recording, which stays as long as `stack`."""
    from giltrace.analysis.selection import Selection
    from giltrace.errors import UsageError
    from giltrace.exporters.tables.schema import SCHEMA
    from giltrace.views.columnar import TABLES, ColumnarProcessor, as_dataset, check_version, definition, is_dataset
    from giltrace.views.ending import exit_when_ended
    from giltrace.views.prompt import Book
    from giltrace.views.subject import Subject

    exit_when_ended(128 + signal.SIGTERM)
    if is_dataset(name):
        if selection != Selection():
            raise UsageError("a data set has no parts", "name its recording, or say in SQL what is asked about")
        check_version(name)
        dataset = name
    else:
        subject = Subject.find(name)
        changed = _part(subject, selection, name, any_size=True)
        with working(f"reading {name}"):
            dataset = stack.enter_context(as_dataset(subject, changed))
    processor = ColumnarProcessor(dataset)
    others = f"those of the data set: {', '.join(SCHEMA)}"
    return Engine(processor.run, Book({table: definition(table) for table in TABLES}, others))


def _is_dataset(name: Path, engine: str) -> bool:
    if engine or not os.path.isdir(name):
        return False
    from giltrace.views.columnar import is_dataset

    return is_dataset(name)


def _part(subject: Subject, selection: Selection, name: Path, *, any_size: bool = False) -> Timeline | None:
    """What is asked about, None if that is everything."""
    from giltrace.analysis.selection import Selection, select

    with working(f"reading {name}"):
        if selection == Selection():
            if not any_size:
                subject.need_small()
            return None
        (changed,) = select([subject.need_timeline("asking about a part", selection)], selection)
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

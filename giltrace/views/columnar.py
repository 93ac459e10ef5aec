"""SQL over a recording of any size: DuckDB, which reads the tables that `export --to parquet` writes.

It knows giltrace's tables of the GIL and of locks by the names and columns that they have in the trace processor
(`sql/duckdb/`), and the data set's own, which are views of the files: what does not fit into memory is read a piece at
a time.
"""

from __future__ import annotations

import contextlib
import glob
import os
import tempfile
import threading
from collections.abc import Iterator
from decimal import Decimal
from importlib import resources
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from giltrace import installation
from giltrace.errors import OutputError, RecordingError
from giltrace.exporters.tables.schema import LATER, PART_KEY, PARTED, SCHEMA, VERSION, Kind
from giltrace.recording.meta import FILE
from giltrace.timeline.model import Timeline
from giltrace.views.subject import Subject
from giltrace.views.trace_processor import QueryError, Rows, Value, distinct

#: The tables of the GIL and of locks, which have the columns that they have in the trace processor.
TABLES = ("gil_holds", "gil_waits", "gil_handoffs", "gil_blame", "lock_waits", "lock_blame")
_SUFFIX = ".parquet"
#: Of each table that is not parted, the file.
_FILE = "part-0.parquet"
_TYPES: dict[Kind, str] = {"int": "bigint", "bool": "boolean", "share": "double", "text": "varchar"}

# What SQLite has and DuckDB calls otherwise, and what a trace says of an interval that is not whole.
_MACROS = """
create macro iif(asked, yes, no) as case when asked then yes else no end;
create macro partial_in_words(start, finish) as case
  when start and finish then 'began before the first record, had not ended at the last'
  when start then 'began before the first record'
  when finish then 'had not ended at the last record'
end;
"""
# Looked up by number where they are asked for: a join would be made whether or not.
_LOOKED_UP = """
set variable first_holds = (select list(first_hold order by image) from processes);
set variable processes = (select list(process order by image) from processes);
set variable stacks = (
  select list(stack order by number) from (
    select number, any_value(told) as stack
    from (select unnest(range(ifnull(max(stack) + 1, 0))) as number from stacks)
    left join (
      select stack as number,
        string_agg(text, ' < ' order by position) || if(any_value(truncated), ' < ...', '') as told
      from stacks group by stack
    ) using (number)
    group by number
  )
);
"""


class ColumnarProcessor:
    """A data set that answers SQL. Raises `QueryError` if DuckDB is missing, `RecordingError` if it cannot read it."""

    def __init__(self, dataset: Path) -> None:
        duckdb = _duckdb()
        self._error: type[Exception] = duckdb.Error
        # Nothing is fetched from elsewhere, and what has no room in memory goes where such things go.
        settings = {"autoinstall_known_extensions": "false", "temp_directory": tempfile.gettempdir()}
        self._base = duckdb.connect(config=settings)
        views = [f"create view {table} as {_source(dataset, table)};" for table in SCHEMA]
        try:
            self._base.execute("\n".join([*views, _MACROS, _LOOKED_UP, *map(definition, TABLES)]))
        except duckdb.Error as error:
            raise RecordingError(f"{dataset} cannot be read: {error}", _ANEW) from None

    def run(self, sql: str) -> Rows:
        """Run the statements of `sql`; the rows of the last. Raises `QueryError` with what DuckDB says."""
        # DuckDB heeds no signal while it is busy: this thread does.
        answers = SimpleQueue[Rows | Exception]()
        try:
            # Here too, for the signal may come while the thread starts.
            threading.Thread(target=lambda: answers.put(self._answer(sql)), name="duckdb").start()
            answer = answers.get()
        except BaseException:
            self._base.interrupt()
            raise
        if isinstance(answer, self._error):
            remedy = "Check the query; DuckDB's SQL applies."
            if any(name in sql for name in ("gil_spans", "gil_gaps", "thread_state", "counter")):
                remedy = "What was merged and Perfetto's own tables are in traces only: leave out --engine duckdb."
            raise QueryError(f"SQL error: {answer}", remedy)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _answer(self, sql: str) -> Rows | Exception:
        try:
            answer = self._base.execute(sql)
            columns = distinct(name for name, *_ in answer.description or ())
            return Rows(columns, [list(map(_value, row)) for row in answer.fetchall()] if columns else [])
        except Exception as error:
            return error


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError:
        raise QueryError("DuckDB is not installed", installation.with_extra("duckdb")) from None
    return duckdb


def _source(dataset: Path, table: str) -> str:
    """Its columns and no others: a folder above that has a name such as `run=3` would be one."""
    if table in LATER and not os.path.isdir(dataset / table):
        nothing = ", ".join(f'null::{_TYPES[kind]} as "{name}"' for name, kind in SCHEMA[table].items())
        return f"select {nothing} where false"
    columns = ", ".join(f'"{name}"' for name in SCHEMA[table])
    place = f"{glob.escape(str(dataset / table))}/" + (f"{PART_KEY}=*/part-*{_SUFFIX}" if table in PARTED else _FILE)
    hive = str(table in PARTED).lower()
    return f"select {columns} from read_parquet('{_quoted(place)}', hive_partitioning = {hive})"


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _value(value: Any) -> Value:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, Decimal):
        return float(value)
    return value if value is None or isinstance(value, int | float | str | bytes) else str(value)


def definition(table: str) -> str:
    """The SQL that makes one of `TABLES`, with a comment on each column."""
    return (resources.files("giltrace.views") / "sql" / "duckdb" / f"{table}.sql").read_text()


def is_dataset(path: Path) -> bool:
    """Whether a folder is what `export --to parquet` writes."""
    return os.path.isfile(path / "processes" / _FILE)


def told_version(dataset: Path) -> tuple[str, str]:
    """The version of its schema, and what part of the recording it has, in words; empty where it does not say.

    Raises `QueryError` without DuckDB, `RecordingError` if it cannot be read.
    """
    duckdb = _duckdb()
    file = glob.escape(str(dataset / "processes" / _FILE))
    try:
        rows = (
            duckdb.connect()
            .execute(f"select decode(key), decode(value) from parquet_kv_metadata('{_quoted(file)}')")
            .fetchall()
        )
    except duckdb.Error as error:
        raise RecordingError(f"{dataset} cannot be read: {error}", _ANEW) from None
    told = dict(rows)
    return told.get("giltrace.schema", ""), told.get("giltrace.part", "")


_ANEW = "export the recording again: giltrace export NAME --to parquet -f"


def check_version(dataset: Path) -> None:
    """Raise `RecordingError` unless this giltrace knows the columns of a data set."""
    version, _ = told_version(dataset)
    if version != str(VERSION):
        said = f"schema {version[:20]}" if version else "no schema"
        raise RecordingError(f"{dataset} has {said}, this giltrace reads {VERSION}", _ANEW)


@contextlib.contextmanager
def as_dataset(subject: Subject, changed: Timeline | None = None) -> Iterator[Path]:
    """Yield the data set of a recording, or of its `changed` timeline; written for as long as needed if there is none.

    Raises `OutputError` if it cannot be written, `UsageError` for a trace alone.
    """
    if changed is None and subject.folder is not None:
        beside = subject.folder.with_name(subject.title + _SUFFIX)
        if _is_of(beside, subject.folder):
            yield beside
            return
    from giltrace.exporters import find

    _duckdb()
    timeline = changed
    if changed is None and subject.folder is not None:
        from giltrace.timeline.windows import outline

        timeline = outline(subject.folder)
    timeline = timeline if timeline is not None else subject.need_timeline("asking by DuckDB")
    exporter = find("parquet")
    assert exporter is not None
    with tempfile.TemporaryDirectory(prefix="giltrace-") as folder:
        place = Path(folder) / (subject.title + _SUFFIX)
        try:
            exporter.write(timeline, place)
        except OutputError as error:
            raise OutputError(error.message, "name a folder with space by TMPDIR") from None
        yield place


def _is_of(dataset: Path, folder: Path) -> bool:
    """Whether there is a data set of all of the recording, written after it, with the columns that are known here."""
    try:
        written = os.stat(dataset / "processes" / _FILE).st_mtime_ns
        if written < os.stat(folder / FILE).st_mtime_ns:
            return False
    except OSError:
        return False
    try:
        return told_version(dataset) == (str(VERSION), "")
    except RecordingError:
        return False

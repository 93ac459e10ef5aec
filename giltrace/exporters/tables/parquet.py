"""Tables as Parquet, for DuckDB, Polars, pandas, Dask and the like; written by pyarrow.

All of them are a data set: a folder for each table, with files whose columns and types are the same whatever was
recorded (`schema`). It is written a piece at a time, one process after the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from giltrace import installation
from giltrace.errors import UsageError
from giltrace.exporters.tables.columns import TABLES, table_of
from giltrace.exporters.tables.image import images
from giltrace.exporters.tables.schema import PART_KEY, PARTED, SCHEMA, VERSION, Kind
from giltrace.exporters.tables.texts import Column, Columns, Texts
from giltrace.exporters.tables.windowed import pieces_of
from giltrace.timeline.model import Process, Timeline

#: Rows of one file at most, or a piece more: what a reader can share out.
FILE_ROWS = 1 << 23
#: Times differ little from row to row, or not by rule: no dictionary is of use.
_PACKED = frozenset(
    {
        "start",
        "end",
        "duration",
        "time",
        "hold",
        "block",
        "woken",
        "culprit_ns",
        "second_culprit_ns",
        "third_culprit_ns",
    }
)


def stream(timeline: Timeline, file: BinaryIO, table: str) -> None:
    """Write one table (a name in `columns.TABLES`) to an open file.

    Raises `UsageError` if pyarrow is not installed.
    """
    with _Files(timeline.part).open(file, table, set()) as writer:
        for columns in table_of(timeline, table):
            writer.write(columns)


def write_dataset(timeline: Timeline, folder: Path, processes: Iterable[Process] | None = None) -> None:
    """Write all tables below an empty folder; `processes`, if given, stand in for the timeline's.

    Of an outline (`timeline.windows`) each process is read window by window. Raises `UsageError` if pyarrow is not
    installed.
    """
    files = _Files(timeline.part)
    filled = set[str]()
    with ExitStack() as stack:
        whole = {table: stack.enter_context(files.file(folder, table)) for table in TABLES if table not in PARTED}
        for image in images(timeline, processes):
            with ExitStack() as ends:
                parts = {
                    table: ends.enter_context(closing(_Parts(files, folder, table, image.number))) for table in PARTED
                }
                for table, columns in pieces_of(image, folder):
                    (whole.get(table) or parts[table]).write(columns)
                filled |= {table for table, part in parts.items() if part.filled}
    for table in PARTED - filled:
        # Readers ask a file which columns there are.
        with files.file(folder, table, 0):
            pass


class _Parts:
    """Writes the rows of one image to as many files of a table as it takes; `filled`: there were any."""

    def __init__(self, files: _Files, folder: Path, table: str, image: int) -> None:
        self._files, self._place = files, (folder, table, image)
        self._number, self._rows = 0, 0
        self._ends = ExitStack()
        self._writer: _Table | None = None
        self.filled = False

    def write(self, columns: Columns) -> None:
        """Append the rows of a piece."""
        if _rows(columns) == 0:
            return
        if self._writer is None or self._rows >= FILE_ROWS:
            self._ends.close()
            self._writer = self._ends.enter_context(self._files.file(*self._place, self._number))
            self._number, self._rows = self._number + 1, 0
        self._writer.write(columns)
        self._rows += _rows(columns)
        self.filled = True

    def close(self) -> None:
        """Finish the last file."""
        self._ends.close()


def _rows(columns: Columns) -> int:
    first = next(iter(columns.values()))
    return len(first.code if isinstance(first, Texts) else first)


class _Files:
    """Opens files of tables, which say what `part` of a recording they have; `UsageError` if there is no pyarrow."""

    def __init__(self, part: tuple[str, ...]) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ImportError:
            install = installation.with_extra("parquet")
            raise UsageError("pyarrow is not installed", f"{install}, or use --to csv, which needs nothing") from None
        self._pyarrow, self._parquet, self._part = pyarrow, parquet, "; ".join(part)

    def file(self, folder: Path, table: str, image: int | None = None, number: int = 0) -> Any:
        """Open a file of a table in a data set: of one image, if it is parted by these."""
        place = folder / table
        if image is not None:
            place /= f"{PART_KEY}={image}"
        place.mkdir(parents=True, exist_ok=True)
        return self.open(place / f"part-{number}.parquet", table, {PART_KEY} if table in PARTED else set())

    @contextmanager
    def open(self, file: Path | BinaryIO, table: str, without: set[str]) -> Iterator[_Table]:
        """Begin a file of a table, `without` some of its columns."""
        kinds = {name: kind for name, kind in SCHEMA[table].items() if name not in without}
        told = {"giltrace.table": table, "giltrace.schema": str(VERSION), "giltrace.part": self._part}
        schema = self._pyarrow.schema([(name, self._type(kinds[name])) for name in kinds], metadata=told)
        packed = [name for name in kinds if name in _PACKED]
        with self._parquet.ParquetWriter(
            file,
            schema,
            compression="zstd",
            use_dictionary=[name for name in kinds if name not in _PACKED and kinds[name] != "bool"],
            column_encoding=dict.fromkeys(packed, "DELTA_BINARY_PACKED"),
        ) as writer:
            yield _Table(self._pyarrow, writer, schema)

    def _type(self, kind: Kind) -> Any:
        arrow = self._pyarrow
        types = {"int": arrow.int64, "bool": arrow.bool_, "share": arrow.float64}
        return arrow.dictionary(arrow.int32(), arrow.string()) if kind == "text" else types[kind]()


class _Table:
    """A table's open file."""

    def __init__(self, pyarrow: Any, writer: Any, schema: Any) -> None:
        self._pyarrow, self._writer, self._schema = pyarrow, writer, schema

    def write(self, columns: Columns) -> None:
        """Append the rows of a piece."""
        if _rows(columns) == 0:
            return
        arrays = [self._array(columns[field.name], field.type) for field in self._schema]
        self._writer.write_table(self._pyarrow.Table.from_arrays(arrays, schema=self._schema))

    def _array(self, column: Column, kind: Any) -> Any:
        arrow = self._pyarrow
        if not isinstance(column, Texts):
            # Fields of records lie apart in memory.
            return arrow.array(np.ascontiguousarray(column)).cast(kind)
        # Of the texts those that occur here: the dictionary is written with every piece.
        used = np.zeros(len(column.values), np.bool_)
        used[column.code] = True
        place = np.cumsum(used, dtype=np.int32) - np.int32(1)
        told = [column.values[at].encode(errors="replace").decode() for at in np.flatnonzero(used).tolist()]
        return arrow.DictionaryArray.from_arrays(arrow.array(place[column.code]), arrow.array(told, arrow.string()))

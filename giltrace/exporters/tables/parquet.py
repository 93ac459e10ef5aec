"""Tables as Parquet files, for DuckDB, pandas, Polars and the like; written by pyarrow."""

from __future__ import annotations

from typing import Any, BinaryIO

from giltrace import installation
from giltrace.errors import UsageError
from giltrace.exporters.tables.columns import TABLES, Column, Texts
from giltrace.timeline.model import Timeline


def stream(timeline: Timeline, file: BinaryIO, table: str) -> None:
    """Write one table (a name in `TABLES`) to an open file; raises `UsageError` if pyarrow is not installed."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UsageError(
            "pyarrow is not installed", f"{installation.with_extra('parquet')}, or use --to csv, which needs nothing"
        ) from None
    writer = None
    for columns in TABLES[table](timeline):
        batch = pyarrow.table({name: _array(pyarrow, column) for name, column in columns.items()})
        if writer is None:
            # Plain text in the file's own words, whichever dictionaries it is encoded with.
            writer = parquet.ParquetWriter(file, batch.schema, compression="zstd")
        writer.write_table(batch)
    if writer is not None:
        writer.close()


def _array(pyarrow: Any, column: Column) -> Any:
    if not isinstance(column, Texts):
        # Fields of records lie apart in memory.
        return pyarrow.array(column.copy())
    values = pyarrow.array([text.encode(errors="replace").decode() for text in column.values], pyarrow.string())
    return values.take(pyarrow.array(column.code.copy()))

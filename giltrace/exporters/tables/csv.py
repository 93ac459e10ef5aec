"""Tables as CSV: a header line, integers of nanoseconds, ``true`` and ``false``, UTF-8; no text is a formula."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import numpy as np

from giltrace.exporters._text import Cells, choices, decimals, integers, rows
from giltrace.exporters.tables.columns import TABLES, table_of
from giltrace.exporters.tables.image import images
from giltrace.exporters.tables.texts import Column, Columns, Texts
from giltrace.exporters.tables.windowed import pieces_of
from giltrace.text import spreadsheet_cell
from giltrace.timeline.model import Timeline

_NEEDS_QUOTES = frozenset(',"\r\n')


def stream(timeline: Timeline, file: BinaryIO, table: str) -> None:
    """Write one table (a name in `columns.TABLES`) to an open file."""
    for number, columns in enumerate(table_of(timeline, table)):
        _write(columns, file, header=number == 0)


def write_tables(timeline: Timeline, folder: Path) -> None:
    """Write a file for each table to an empty folder; of an outline (`timeline.windows`) window by window."""
    with ExitStack() as ends:
        files = {table: ends.enter_context((folder / f"{table}.csv").open("wb")) for table in TABLES}
        for image in images(timeline):
            for table, columns in pieces_of(image, folder):
                _write(columns, files[table], header=files[table].tell() == 0)


def _write(columns: Columns, file: BinaryIO, *, header: bool) -> None:
    if header:
        file.write((",".join(columns) + "\n").encode())
    if len(next(iter(columns.values()))) == 0:
        return
    parts: list[bytes | Cells] = []
    for column in columns.values():
        parts += [b",", _cells(column)]
    file.write(rows(*parts[1:], b"\n"))


def _cells(column: Column) -> Cells:
    if isinstance(column, Texts):
        return choices([_quoted(text) for text in column.values])(column.code)
    if column.dtype == np.bool_:
        return choices([b"false", b"true"])(column.astype(np.int64))
    if column.dtype == np.float64:
        return decimals(np.rint(column * 10_000), 4)
    return integers(column)


def _quoted(text: str) -> str:
    text = spreadsheet_cell(text)
    return '"' + text.replace('"', '""') + '"' if _NEEDS_QUOTES & set(text) else text

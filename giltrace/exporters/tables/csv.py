"""Tables as CSV: a header line, integers of nanoseconds, ``true`` and ``false``, UTF-8; no text is a formula."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from giltrace.exporters._text import Cells, choices, decimals, integers, rows
from giltrace.exporters.tables.columns import table_of
from giltrace.exporters.tables.texts import Column, Texts
from giltrace.text import spreadsheet_cell
from giltrace.timeline.model import Timeline

_NEEDS_QUOTES = frozenset(',"\r\n')


def stream(timeline: Timeline, file: BinaryIO, table: str) -> None:
    """Write one table (a name in `columns.TABLES`) to an open file."""
    header = False
    for columns in table_of(timeline, table):
        if not header:
            file.write((",".join(columns) + "\n").encode())
            header = True
        if len(next(iter(columns.values()))) == 0:
            continue
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

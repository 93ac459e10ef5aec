"""Rows of a query: as a table for people, as CSV and JSON for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from giltrace.text import json_text, spreadsheet_cell, visible

Value = int | float | str | bytes | None

#: What a column of a table takes besides its cells, and what is between a name and its value.
_GAP, _INDENT = 3, 2


def print_rows(columns: Sequence[str], rows: Sequence[Sequence[Value]], console: Console) -> None:
    """Print a table; where the terminal is too narrow for it, each row as lines of its own.

    What is not read on a terminal is never wrapped or cut off.
    """
    columns = [visible(name) for name in columns]
    cells = [[visible(_plain(value)) for value in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells, strict=True)]
    width = sum(widths) + _GAP * (len(widths) + 1)
    if console.is_terminal and width > console.width and len(columns) > 1:
        _print_records(columns, cells, console)
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for at, name in enumerate(columns):
        numbers = all(isinstance(row[at], int | float | None) for row in rows)
        table.add_column(Text(name), justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    if not console.is_terminal:
        console.width = max(console.width, width)
    console.print(table)


def as_csv(columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> str:
    """The rows as CSV with a header line; null is empty, and no text is a formula."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (columns, *rows):
        writer.writerow([spreadsheet_cell(visible(_plain(value))) for value in row])
    return text.getvalue()


def as_json(columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> str:
    """The rows as a JSON list with an object per row; bytes are hexadecimal."""
    objects = [dict(zip(columns, row, strict=True)) for row in rows]
    return json_text(objects, indent=2) + "\n"


def _print_records(columns: Sequence[str], cells: Sequence[Sequence[str]], console: Console) -> None:
    indent = max(map(len, columns)) + _INDENT
    for at, row in enumerate(cells):
        if at:
            console.print()
        for name, cell in zip(columns, row, strict=True):
            line = Table.grid()
            line.add_column(width=indent)
            line.add_column(overflow="fold")
            line.add_row(Text(name, "bold"), Text(cell))
            console.print(line)


def _plain(value: Value) -> str:
    if value is None:
        return ""
    return value.hex() if isinstance(value, bytes) else str(value)

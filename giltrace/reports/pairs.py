"""Tables of pairs, on a terminal: who waited, and below it for whom, beside figures."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from giltrace.reports.console import print_table
from giltrace.reports.threads import WIDE

#: A column of names has so much room at least, however narrow the terminal.
LEAST_NAME = 16

_Row = TypeVar("_Row")


def print_pairs(
    title: str,
    headings: Sequence[str],
    rows: Sequence[_Row],
    figures_of: Callable[[_Row], Sequence[str]],
    pair_of: Callable[[_Row, int], Text],
    console: Console,
) -> None:
    """Print `rows`: of each what `pair_of` makes of it for the room that there is, and its figures."""
    figures = [figures_of(row) for row in rows]
    wide = [max(map(len, column)) for column in zip(headings, *figures, strict=True)]
    room = max(min(console.width, WIDE) - 1 - sum(wide) - len(wide), LEAST_NAME)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(f"  {title}", width=room)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row, texts in zip(rows, figures, strict=True):
        table.add_row(pair_of(row, room), *map(Text, texts))
    print_table(table, console)


def wrapped(text: str, room: int, indent: str) -> str:
    """Text wrapped by hand: what a table wraps loses its indent."""
    return "\n".join(
        textwrap.wrap(text, room, initial_indent=indent, subsequent_indent=f"{indent}    ", break_on_hyphens=False)
    )

"""Where reports are printed: a terminal, a file or a pipe, of a width that something fits into."""

from __future__ import annotations

import textwrap
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_NARROWEST, _USUAL = 20, 80


def console(**options: Any) -> Console:
    """Return Rich's console with these `options`; a width that cannot be meant (``COLUMNS=0``) becomes 80.

    What is printed goes where it is to go in a notebook, too, where Rich would show it.
    """
    # Nothing here is an emoji's name: looking for one reads a list of all of them.
    made = Console(**options, force_jupyter=False, emoji=False)
    if made.width < _NARROWEST:
        made.width = _USUAL
    return made


def print_heading(text: str, console: Console) -> None:
    """Print what begins a part of a page."""
    console.print(Text(text, style="bold cyan"))


def paragraph(text: str, console: Console, *, style: str = "", indent: str = "  ") -> None:
    """Print text wrapped and indented, without the blanks that would fill its lines in a pipe."""
    lines = textwrap.wrap(
        text, console.width - 1, initial_indent=indent, subsequent_indent="  ", break_on_hyphens=False
    )
    console.print(Text("\n".join(lines), style=style))


def print_table(table: Table, console: Console) -> None:
    """Print a table without the blanks that would fill its lines in a pipe."""
    for segments in console.render_lines(table, pad=False):
        line = Text.assemble(*((segment.text, segment.style or "") for segment in segments))
        line.rstrip()
        console.print(line)

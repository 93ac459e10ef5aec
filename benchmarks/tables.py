"""Tables of what was measured: in Markdown for the documentation, or on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table


def in_markdown(head: Sequence[str], rows: Sequence[Sequence[str]], left: int | None = None) -> str:
    """Lines of Markdown; with `left`, so many columns are at the left, and the others, of figures, at the right."""
    rule = ["---" if left is None or at < left else "--:" for at in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def show(head: Sequence[str], rows: Sequence[Sequence[str]], *, markdown: bool, left: int | None = None) -> None:
    """Print a table."""
    if markdown:
        print(in_markdown(head, rows, left))
        return
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    Console().print(table)

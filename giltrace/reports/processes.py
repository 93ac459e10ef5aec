"""The tree of processes on a terminal: what each runs, and what the GIL cost it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from giltrace.analysis.durations import duration
from giltrace.analysis.results import ProcessReport
from giltrace.reports.console import paragraph, print_table
from giltrace.reports.names import shortened
from giltrace.reports.tree import Branch, process_tree

#: So many lines are printed; what is left is counted in one.
MOST_LINES = 16
_LEAST_NAME = 16
_HEADINGS = ("threads", "held", "waited", "longest\nwait")


def print_overview(
    processes: Sequence[ProcessReport], gils_at_once: float, console: Console, *, everything: bool = False
) -> None:
    """Print the tree, the busiest first; equal workers share a line unless `everything` is asked for."""
    lines = process_tree(processes, together=not everything)
    shown = lines if everything else lines[:MOST_LINES]
    figures = [_figures(branch) for _, branch in shown]
    taken = [
        max(map(len, (*heading.split("\n"), *column))) for heading, *column in zip(_HEADINGS, *figures, strict=True)
    ]
    verdicts = [branch.verdicts for _, branch in shown]
    room = console.width - 1 - sum(taken) - max(map(len, verdicts)) - 2 * len(taken) - 2
    heads = ["  " * (depth + 1) + branch.which for depth, branch in shown]
    width = max(room - max(map(len, heads)) - 1, _LEAST_NAME)
    runs = [branch.runs for _, branch in shown]
    named = shortened(runs, width)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("  process", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for head, run, verdict, cells in zip(heads, runs, verdicts, figures, strict=True):
        table.add_row(*map(Text, (f"{head} {named[run]}", verdict, *cells)))
    print_table(table, console)
    if len(lines) > len(shown):
        left = sum(len(branch.processes) for _, branch in lines[len(shown) :])
        paragraph(f"{left} more processes; --all shows them", console)
    paragraph(f"Each has a GIL of its own; {gils_at_once:.1f} GILs were held at once on average.", console)
    console.print()


def _figures(branch: Branch) -> list[str]:
    times = (branch.held_ns, branch.waited_ns, branch.wait_max_ns)
    return [str(len(branch.threads)), *map(duration, times)]

"""Where threads were without the GIL, and who made whom wait in locks, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.findings.locks import did
from giltrace.analysis.lock_results import CAUSE_TEXT, LockBlame, OnPath, Whereabouts, without_text
from giltrace.analysis.site import Site
from giltrace.reports.console import paragraph, print_table
from giltrace.reports.names import site_name
from giltrace.reports.pairs import print_pairs, wrapped
from giltrace.text import plural

#: So many rows are printed; the rest is counted in one line.
TOP_ROWS = 8
#: What is less than this share of all is housekeeping.
LEAST_SHARE = 0.01
#: What owners did for less than this share of a row is left out.
LEAST_DID = 0.1
#: So much of the critical path is printed: so many rows, of this share of the time at least.
TOP_PATH = 5
LEAST_ON_PATH = 0.02

_PATH = {
    "python": "ran Python up to",
    "waiting": "waited for the GIL at",
    "asleep-with-gil": "slept with the GIL at",
}


def print_whereabouts(rows: Sequence[Whereabouts], console: Console, *, everything: bool = False) -> None:
    """Print where threads were without the GIL, the longest first."""
    total = sum(row.ns for row in rows)
    shown = [row for row in rows[: None if everything else TOP_ROWS] if everything or row.ns >= LEAST_SHARE * total]
    print_some_whereabouts(shown, rows, console, "--all shows them")


def print_some_whereabouts(
    shown: Sequence[Whereabouts], rows: Sequence[Whereabouts], console: Console, where: str
) -> None:
    """Print the `shown` ones of these rows as parts of all, and what is left out: `where` says how to see that."""
    total = max(sum(row.ns for row in rows), 1)
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for row in shown:
        told = without_text(row.doing, row.cause)
        table.add_row(f"    {duration(row.ns)}", percent(row.ns / total), Text(told, "bold"), Text(site_name(row.site)))
    print_table(table, console)
    rest = len(rows) - len(shown)
    if rest:
        left = duration(sum(row.ns for row in rows) - sum(row.ns for row in shown))
        paragraph(f"{plural(rest, 'more row')}, {left} in all; {where}", console)


def print_path(rows: Sequence[OnPath], wall_ns: int, end_of: str, console: Console) -> None:
    """Print what the end hung on, most of it first, and how long the whole would take without that at least."""
    shown = [row for row in rows[:TOP_PATH] if row.ns >= LEAST_ON_PATH * wall_ns]
    paragraph(f"The end of the {end_of} hung on these; without one of them the whole would take at least:", console)
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1)
    for row in shown:
        told = f"{_PATH.get(row.doing, '') or without_text(row.doing, row.cause)}"
        left = duration(max(wall_ns - row.ns, 0))
        table.add_row(
            f"    {duration(row.ns)}", percent(row.ns / max(wall_ns, 1)), left, Text(f"{told}: {site_name(row.site)}")
        )
    print_table(table, console)


def print_locks(rows: Sequence[LockBlame], console: Console, *, everything: bool = False) -> None:
    """Print who was blocked and who woke whom, the costliest first, with what the wakers did meanwhile."""
    total = max(sum(row.ns for row in rows), 1)
    shown = [row for row in rows if everything or row.ns >= LEAST_SHARE * total]
    shown = shown if everything else shown[:TOP_ROWS]
    print_pairs(
        "who was blocked, and by whom",
        ("blocked", "times", "longest"),
        shown,
        lambda row: (duration(row.ns), f"{row.blocks:,}", duration(row.max_ns)),
        _pair,
        console,
    )
    rest = len(rows) - len(shown)
    if rest:
        lost = duration(total - sum(row.ns for row in shown))
        paragraph(f"{plural(rest, 'more pair')}, {lost} in all; --all shows them", console)


def _pair(row: LockBlame, room: int) -> Text:
    """The blocked line, its waker below it, and what that one did."""
    several = f" ({len(row.locks)} of them)" if len(row.locks) > 1 and row.cause in ("lock", "object-lock") else ""
    told = f"in the lock of a {' or '.join(row.objects[:3])}" if row.objects else CAUSE_TEXT[row.cause]
    pair = Text(wrapped(f"{site_name(row.victim)}: {told}{several}", room, "  "))
    pair.append("\n").append(wrapped(f"until {_waker(row.waker)}", room, "    "), style="red")
    for one in row.meanwhile:
        if one.ns >= LEAST_DID * row.ns:
            share = percent(min(one.ns / max(row.ns, 1), 1))
            pair.append("\n").append(wrapped(f"{share} of that it {did(one)}", room, "      "), style="red")
    if row.speedup_bound:
        told = f"without this lock the whole would be at most {row.speedup_bound:.2f} x as fast"
        pair.append("\n").append(wrapped(told, room, "      "))
    return pair


def _waker(site: Site | None) -> str:
    if site is None:
        return "its time was up, or to the end"
    return site_name(site) if site.function else f"{site.thread} ended"

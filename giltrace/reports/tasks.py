"""Which kinds of tasks waited and for which, and the workers of a fleet, on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.lock_results import CAUSE_TEXT
from giltrace.analysis.results import Report
from giltrace.analysis.site import Site
from giltrace.analysis.task_results import GIL, Fleet, TaskBlame, TaskPrefix
from giltrace.reports.console import paragraph, print_heading, print_table
from giltrace.reports.names import shortened
from giltrace.reports.pairs import LEAST_NAME, print_pairs, wrapped
from giltrace.text import plural

#: So many rows are printed of each table; the rest is counted in one line.
TOP_ROWS = 10
#: What is less than this share of all is housekeeping.
LEAST_SHARE = 0.01
#: What the threads of a worker do beside tasks.
BESIDE = "(the worker itself)"


def print_tasks(report: Report, console: Console, *, everything: bool = False) -> None:
    """Print what is known of a fleet and of tasks; nothing of a recording that has neither."""
    most = None if everything else TOP_ROWS
    if report.fleet is not None:
        fleet = report.fleet
        hosts = len({row.host for row in fleet.workers})
        print_heading(f"{plural(len(fleet.workers), 'worker')} on {plural(hosts, 'host')}", console)
        paragraph(fleet.summary, console, style="bold")
        if fleet.advice:
            paragraph(fleet.advice, console)
        console.print()
    if report.tasks:
        print_heading("What each kind of task lost", console)
        _print_prefixes(report.tasks, console, most)
        console.print()
    if report.task_blame:
        print_heading("Which tasks made which wait", console)
        _print_blame(report.task_blame, console, most)
        console.print()
    if report.fleet is not None:
        print_heading("By host and worker", console)
        _print_workers(report.fleet, console, most)
        console.print()


def _print_prefixes(rows: Sequence[TaskPrefix], console: Console, most: int | None) -> None:
    headings = ("tasks", "time", "held", "waited", "%", "longest\nwait", "in\nlocks", "made\nwait")
    shown = rows[:most]
    cells = [
        (
            f"{row.tasks:,}" if row.prefix else "",
            duration(row.ns) if row.prefix else "",
            duration(row.held_ns),
            duration(row.waited_ns),
            f"{100 * row.waited_ns / row.ns:.0f}" if row.ns else "",
            duration(row.wait_max_ns),
            duration(row.blocked_ns) if row.prefix else "",
            duration(row.cost_ns),
        )
        for row in shown
    ]
    _print(console, "tasks named", [row.prefix or BESIDE for row in shown], headings, cells)
    _print_rest(len(rows) - len(shown), "more kind", console)


def _print_blame(rows: Sequence[TaskBlame], console: Console, most: int | None) -> None:
    total = max(sum(row.ns for row in rows), 1)
    shown = [row for row in rows if most is None or row.ns >= LEAST_SHARE * total][:most]
    print_pairs(
        "which tasks waited, where, and for which",
        ("lost", "times", "longest"),
        shown,
        lambda row: (duration(row.ns), f"{row.count:,}", duration(row.max_ns)),
        _pair,
        console,
    )
    _print_rest(len(rows) - len(shown), "more pair", console)


def _pair(row: TaskBlame, room: int) -> Text:
    what = "" if row.cause == GIL else f", {CAUSE_TEXT[row.cause]}"
    pair = Text(wrapped(f"{_at(row.prefix, row.victim)}{what}", room, "  "))
    whom = "its time was up, or to the end" if row.culprit is None else _at(row.culprit_prefix, row.culprit)
    pair.append("\n").append(wrapped(f"{'for' if row.cause == GIL else 'until'} {whom}", room, "    "), style="red")
    return pair


def _at(prefix: str, site: Site) -> str:
    # What starts a worker is no place to look at.
    where = "" if not prefix and site.own_file.startswith("<") else site.where
    return f"{prefix or BESIDE}: {where}" if where else prefix or BESIDE


def _print_workers(fleet: Fleet, console: Console, most: int | None) -> None:
    rows = sorted(fleet.workers, key=lambda row: (row.host, -row.waited_ns))
    shown = rows[:most]
    headings = ("pid", "tasks", "GIL %", "waited", "% of\ntasks", "beside\ntasks", "clock\nwithin")
    cells = [
        (
            str(row.own_pid),
            f"{row.tasks:,}",
            f"{100 * row.held_ns / max(row.duration_ns, 1):.0f}",
            duration(row.waited_ns),
            f"{100 * row.waited_ns / row.task_ns:.0f}" if row.task_ns else "-",
            duration(row.own_waited_ns),
            duration(row.clock_error_ns),
        )
        for row in shown
    ]
    _print(console, "host, worker", [f"{row.host} {row.worker}" for row in shown], headings, cells)
    _print_rest(len(rows) - len(shown), "more worker", console)
    for host in dict.fromkeys(row.host for row in rows):
        mine = [row for row in rows if row.host == host]
        held, waited = sum(row.held_ns for row in mine), sum(row.waited_ns for row in mine)
        share = percent(waited / max(sum(row.task_ns for row in mine), 1))
        told = f"{host}: {plural(len(mine), 'worker')}, GILs held for {duration(held)},"
        paragraph(f"{told} tasks waited {duration(waited)} ({share} of their time)", console)


def _print(
    console: Console, title: str, names: Sequence[str], headings: Sequence[str], rows: Sequence[Sequence[str]]
) -> None:
    taken = [max(map(len, (*heading.split("\n"), *cells))) for heading, *cells in zip(headings, *rows, strict=True)]
    width = max(console.width - sum(taken) - len(taken) - 4, LEAST_NAME)
    named = shortened(names, width)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(f"  {title}", no_wrap=True)
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, cells in zip(names, rows, strict=True):
        table.add_row(*map(Text, (f"  {named[name]}", *cells)))
    print_table(table, console)


def _print_rest(number: int, what: str, console: Console) -> None:
    if number > 0:
        paragraph(f"{plural(number, what)}; --all shows them", console)

"""The summary of a recording on a terminal, or in a file or pipe: 80 columns and no colour are enough."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Phase
from giltrace.analysis.summary import GilSummary, ProcessSummary, Quality, Summary
from giltrace.reports.console import paragraph, print_table
from giltrace.reports.locks import print_some_whereabouts
from giltrace.reports.names import site_name
from giltrace.reports.threads import thread_table
from giltrace.reports.tree import weight
from giltrace.text import plural

#: So many are printed; the rest is folded into one line.
TOP_PROCESSES = 8
TOP_WORKERS = 2
TOP_GILS = 4
TOP_VIOLATIONS = 5


def print_summary(summary: Summary, console: Console) -> None:
    """Print each process (those that used a GIL most come first), then the quality of the measurement."""
    processes = sorted(summary.processes, key=weight, reverse=True)
    print_part(summary.part, console)
    if summary.tasks.prefixes:
        from giltrace.analysis.fleet import what_tasks_lost

        told, advice = what_tasks_lost(summary.tasks, len(processes))
        paragraph(told, console, style="bold", indent="")
        if advice:
            paragraph(advice, console)
        console.print()
    # Of a fleet it is told together; the report has each.
    shown = TOP_WORKERS if summary.tasks.prefixes else TOP_PROCESSES
    for process in processes[:shown]:
        _print_process(process, console)
    _print_folded(processes[shown:], console)
    if not processes:
        console.print(Text("No Python process was recorded."))
    print_quality(summary.quality, console)


def print_part(part: Sequence[str], console: Console) -> None:
    """Say which part of the recording all that follows is of, if it is one."""
    if part:
        paragraph(f"A part of the recording: {'; '.join(part)}.", console, style="bold", indent="")
        console.print()


def _print_process(process: ProcessSummary, console: Console) -> None:
    head = Text(f"process {process.pid}", style="bold")
    version = process.python.split()[:1]
    about = [f"Python {version[0]}"] if version else []
    about += [duration(process.wall_ns), plural(len(process.threads), "thread")]
    about += [process.limits] if process.limits else []
    about += [f"then became {process.became}"] if process.became else []
    head.append(f"  {', '.join(about)}", style="not bold")
    console.print(head)
    if process.cmdline:
        command = Text(f"  {' '.join(process.cmdline.split())}", style="dim", no_wrap=True)
        # Cut by hand: an ellipsis is not in every encoding.
        command.truncate(console.width, overflow="crop")
        console.print(command)
    paragraph(process.verdict.summary, console, style="bold")
    if process.verdict.advice:
        paragraph(process.verdict.advice, console)
    if process.phases:
        paragraph(f"Its character changes with time: {', '.join(map(_phase, process.phases))}.", console)
    _print_culprits(process, console)
    if process.told_whereabouts:
        paragraph("Without the GIL, threads were:", console)
        where = "report --all shows them"
        print_some_whereabouts(process.told_whereabouts, process.whereabouts, console, where)
    if process.threads:
        print_table(thread_table(process.threads, console.width), console)
    _print_gils(process, console)
    console.print()


def _phase(phase: Phase) -> str:
    return f"{phase.verdict.kind} until {phase.end_ns / 1e9:.3f}s"


def _print_culprits(process: ProcessSummary, console: Console) -> None:
    """The lines for which threads waited, if that was for long."""
    if not process.told_culprits:
        return
    waited = process.waited_ns
    paragraph(f"Threads waited {duration(waited)}; meanwhile these lines had the GIL:", console)
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    for _ in range(2):
        table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1)
    for row in process.told_culprits:
        table.add_row(f"    {duration(row.ns)}", percent(row.ns / waited), Text(site_name(row.site), style="red"))
    print_table(table, console)


def _print_gils(process: ProcessSummary, console: Console) -> None:
    used = sorted((gil for gil in process.gils if gil.held_ns), key=lambda gil: -gil.held_ns)
    for gil in used[:TOP_GILS]:
        paragraph(_gil_line(gil, process, len(process.gils) > 1), console)
    rest = used[TOP_GILS:]
    if rest:
        held = duration(sum(gil.held_ns for gil in rest))
        paragraph(f"{len(rest)} more GILs, held for {held} in all", console)


def _gil_line(gil: GilSummary, process: ProcessSummary, several: bool) -> str:
    wall = max(process.wall_ns, 1)
    parts = [
        f"held {duration(gil.held_ns)} ({percent(gil.held_ns / wall)} of the time)",
        f"free {duration(gil.free_ns)}",
        f"contended {duration(gil.contended_ns)} ({percent(gil.contended_ns / wall)} of the time)",
    ]
    latency = (
        f" (median {duration(gil.wake_latency_median_ns)} to a waiter)"
        if gil.wake_latency_median_ns is not None
        else ""
    )
    parts += [plural(gil.hand_offs, "hand-off") + latency, plural(gil.switch_requests, "switch request")]
    return f"GIL{f' {gil.gil}' if several else ''}: {', '.join(parts)}"


def _print_folded(rest: Sequence[ProcessSummary], console: Console) -> None:
    if rest:
        held = duration(sum(thread.held_ns for process in rest for thread in process.threads))
        noun = "process" if len(rest) == 1 else "processes"
        console.print(Text(f"{len(rest)} more {noun}, which held a GIL for {held} in all"))
        console.print()


def print_quality(quality: Quality, console: Console) -> None:
    """Print losses, broken invariants, the clock's error and each collector's status and cost."""
    if quality.sampled:
        paragraph(quality.sampled, console, style="yellow", indent="")
    lost = plural(quality.lost, "lost event")
    if quality.sched_lost:
        lost += f" ({quality.sched_lost} of them scheduling records)"
    if quality.lost_stacks:
        lost += f", {quality.lost_stacks} lost stacks"
    parts = [
        lost,
        plural(len(quality.violations), "broken invariant"),
        f"clock error {duration(quality.clock_error_ns)}",
    ]
    for collector in quality.collectors:
        told = collector.status if not collector.cost else f"{collector.status} ({collector.cost})"
        parts.append(f"{collector.name} {told}")
    style = "yellow" if quality.lost or quality.lost_stacks or quality.violations else ""
    paragraph(f"quality: {', '.join(parts)}", console, style=style, indent="")
    for remark in quality.remarks:
        paragraph(remark, console)
    for violation in quality.violations[:TOP_VIOLATIONS]:
        paragraph(violation, console)
    if len(quality.violations) > TOP_VIOLATIONS:
        paragraph(f"and {len(quality.violations) - TOP_VIOLATIONS} more", console)

"""The report on a terminal, or in a file or pipe: 80 columns and no colour are enough.

Per process it answers in this order: the verdict, what the GIL cost, who did it to whom, what would change without a
GIL; and at the end how good the measurement is.
"""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Convoy, EventLoop, Hog
from giltrace.analysis.measure.native_code import functions_text
from giltrace.analysis.results import GilReport, ProcessReport, Report, WaitDecomposition, WhatIf
from giltrace.analysis.summary import Quality
from giltrace.reports.blame import BRIEF, Detail, print_blame
from giltrace.reports.console import paragraph, print_heading, print_table
from giltrace.reports.convoys import alike
from giltrace.reports.locks import print_locks, print_path, print_whereabouts
from giltrace.reports.names import site_name
from giltrace.reports.processes import print_overview
from giltrace.reports.summary import TOP_GILS, TOP_PROCESSES, print_part, print_quality
from giltrace.reports.tasks import print_tasks
from giltrace.reports.thread_rows import as_summary
from giltrace.reports.threads import thread_table
from giltrace.reports.tree import weight
from giltrace.text import plural

#: So many rows are printed of each ranking; the rest is counted in one line.
TOP_PATTERNS = 5
#: What shares among the evidence are parts of, where that is not the time that the process lived, by their names.
_SHARE_OF = {
    "waited": "its life",
    "off_gil": "the threads' lives",
    "top_held": "the held time",
    "hand_over": "the held time",
    "overlap": "the time in which anything ran",
    "collecting": "what was seen of these holds",
    "asleep": "what they overstayed",
}
_RATIOS = {"off_running": "off running {} times as long as held"}
_BAR = 16
#: A second bound is told where it is so many times the first.
_TELLING = 1.1


def print_report(report: Report, console: Console, detail: Detail = BRIEF) -> None:
    """Print the report: those processes first that used a GIL most."""
    processes = sorted(report.processes, key=weight, reverse=True)
    if report.caught:
        paragraph(report.caught, console, style="bold", indent="")
        console.print()
    print_part(report.part, console)
    print_tasks(report, console, everything=detail.everything)
    if len(processes) > 1:
        print_heading(f"{len(processes)} processes", console)
        print_overview(processes, report.gils_at_once, console, everything=detail.everything)
    shown = len(processes) if detail.everything else TOP_PROCESSES
    for process in processes[:shown]:
        _print_process(process, console, detail)
    rest = processes[shown:]
    if rest:
        paragraph(f"{len(rest)} more processes, which used the GIL less; --process PID shows one", console, indent="")
        console.print()
    if not processes:
        console.print(Text("No Python process was recorded."))
    print_heading("How good the measurement is", console)
    print_quality(_quality(report), console)


def _print_process(process: ProcessReport, console: Console, detail: Detail) -> None:
    _print_verdict(process, console)
    if not any(gil.holds for gil in process.gils):
        if process.verdict.kind == "not-recorded":
            paragraph("No use of a GIL is on record: what it cost, and whom, is not known.", console)
        _print_without(process, console, detail)
        console.print()
        return
    off = sum(row.ns for row in process.whereabouts)
    outweighs = off > process.wait_decomposition_ns.total_ns
    if outweighs:
        _print_without(process, console, detail)
    _print_cost(process, console, detail)
    print_heading("Who made whom wait", console)
    print_blame(process, console, detail)
    _print_trust(process, console)
    if not outweighs:
        _print_without(process, console, detail)
    _print_patterns(process, console, detail)
    if process.critical_path:
        print_heading("What the end hung on", console)
        print_path(process.critical_path, process.duration_ns, process.end_of, console)
        console.print()
    print_heading("What would change without a GIL", console)
    _print_what_if(process.what_if, process.end_of, console)
    console.print()


def _print_without(process: ProcessReport, console: Console, detail: Detail) -> None:
    """Where threads were without the GIL, and who made whom wait in locks."""
    if process.whereabouts:
        print_heading("Where threads were without the GIL", console)
        print_whereabouts(process.whereabouts, console, everything=detail.everything)
        console.print()
    if process.lock_blame:
        print_heading("Who made whom wait in locks", console)
        print_locks(process.lock_blame, console, everything=detail.everything)
        console.print()


def _print_verdict(process: ProcessReport, console: Console) -> None:
    head = Text(f"process {process.pid}", style="bold")
    about = [f"Python {process.python.split()[0]}"] if process.python.split() else []
    about += [duration(process.duration_ns), plural(len(process.threads), "thread")]
    about += [process.limits] if process.limits else []
    about += [f"then became {process.became}"] if process.became else []
    head.append(f"  {', '.join(about)}", style="not bold")
    console.print(head)
    if process.cmdline:
        command = Text(f"  {' '.join(process.cmdline.split())}", style="dim", no_wrap=True)
        # Cut by hand: an ellipsis is not in every encoding.
        command.truncate(console.width, overflow="crop")
        console.print(command)
    if process.note:
        paragraph(process.note, console)
    console.print()
    print_heading(f"Verdict: {process.verdict.kind}", console)
    paragraph(process.verdict.summary, console, style="bold")
    if process.verdict.advice:
        paragraph(process.verdict.advice, console)
    if process.verdict.evidence:
        told = ", ".join(_figure(name, value) for name, value in process.verdict.evidence.items())
        paragraph(f"Evidence: {told}.", console)
    if process.phases:
        paragraph("Its character changes with time (--window A..B tells of a part):", console)
        for phase in process.phases:
            stretch = f"{phase.start_ns / 1e9:.3f}s..{phase.end_ns / 1e9:.3f}s"
            paragraph(f"  {stretch}  {phase.verdict.kind}", console)
    console.print()


def _figure(name: str, value: float) -> str:
    """Write a figure of the evidence: its name ends in its unit, and a share says of what it is one."""
    stem, _, unit = name.rpartition("_")
    words = stem.replace("_", " ")
    if unit == "ns":
        return f"{words} {duration(value)}"
    if unit == "share":
        return f"{words} {percent(value)} of {_SHARE_OF.get(stem, 'the time')}"
    if unit == "ratio":
        return _RATIOS.get(stem, f"{words} {{}}").format(f"{value:.2f}")
    number = f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"
    return f"{name.replace('_', ' ')} {number}"


def _print_cost(process: ProcessReport, console: Console, detail: Detail) -> None:
    print_heading("What the GIL cost", console)
    parts = process.wait_decomposition_ns
    if parts.total_ns:
        waits = sum(thread.waits for thread in process.threads)
        paragraph(f"Threads waited {duration(parts.total_ns)} in {plural(waits, 'wait')}; in that time:", console)
        print_table(_decomposition(parts, process.has_sched), console)
        console.print()
        _print_findings(process, console)
    else:
        paragraph("No thread ever waited for the GIL.", console)
    console.print()
    if process.threads:
        threads = [as_summary(thread) for thread in process.threads]
        print_table(thread_table(threads, console.width, everything=detail.everything), console)
    used = sorted((gil for gil in process.gils if gil.held_ns), key=lambda gil: -gil.held_ns)
    for gil in used[:TOP_GILS]:
        paragraph(_gil_line(gil, process), console)
    if len(used) > TOP_GILS:
        held = duration(sum(gil.held_ns for gil in used[TOP_GILS:]))
        paragraph(f"{len(used) - TOP_GILS} more GILs, held for {held} in all", console)
    console.print()


def _print_findings(process: ProcessReport, console: Console) -> None:
    """What the waiting was lost to: whose lines, and how much of it the end hung on."""
    paragraph(f"Lost to, and how much of that the end of the {process.end_of} hung on:", console)
    total = max(process.wait_decomposition_ns.total_ns, 1)
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    for _ in range(3):
        table.add_column(justify="right", no_wrap=True)
    table.add_column(ratio=1)
    for found in process.findings:
        where = site_name(found.victim)
        if found.culprit is not None:
            where += f", to {site_name(found.culprit)}"
        figures = (duration(found.ns), percent(found.ns / total), duration(found.path_ns))
        table.add_row(Text(f"  {found.cause}", style="bold"), *map(Text, (*figures, where)))
    print_table(table, console)


def _decomposition(parts: WaitDecomposition, has_sched: bool) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    rows = [
        ("holder running Python", parts.holder_python_ns),
        ("holder in C, past a switch request", parts.holder_c_ns),
        ("holder ready, but without a core", parts.holder_no_core_ns),
        ("holder asleep with the GIL", parts.holder_blocked_ns),
        ("nobody held it: wake-up latency", parts.wake_up_ns),
    ]
    if not has_sched:
        rows[1:4] = [("past a switch request: in C, or no core", parts.holder_c_ns)]
    for name, ns in rows:
        share = ns / max(parts.total_ns, 1)
        bar = Text("#" * round(share * _BAR), style="red")
        table.add_row(Text(f"  {name}"), Text(duration(ns)), Text(percent(share)), bar)
    return table


def _gil_line(gil: GilReport, process: ProcessReport) -> str:
    wall = max(process.duration_ns, 1)
    name = f"GIL {gil.gil}" if len(process.gils) > 1 else "GIL"
    return (
        f"{name}: held {duration(gil.held_ns)} ({percent(gil.held_ns / wall)} of the time), "
        f"free {duration(gil.free_ns)}, "
        f"contended {duration(gil.contended_ns)} ({percent(gil.contended_ns / wall)} of the time), "
        f"{plural(gil.handoffs, 'hand-off')}, {plural(gil.switch_requests, 'switch request')}, "
        f"{gil.forced} forced and {gil.voluntary} voluntary releases"
    )


def _print_trust(process: ProcessReport, console: Console) -> None:
    """How it is known what the holders did."""
    lost = sum(row.ns for row in process.culprits)
    if not lost or not process.has_stacks:
        return
    told = f"The holders' lines: waiters took {plural(process.holder_samples, 'sample')} of what holders did"
    rest = lost - process.sampled_ns
    if not process.sampled_ns:
        told = "The holders' lines: where each gave the GIL up, for no waiter came to look at what it did"
    elif rest * 1000 >= lost:
        told += f"; for {percent(rest / lost)} of this time it is only known where the GIL was given up"
    paragraph(f"{told}.", console)
    console.print()


def _print_patterns(process: ProcessReport, console: Console, detail: Detail) -> None:
    shown = None if detail.everything else TOP_PATTERNS
    told = [_hog(hog) for hog in process.hogs[:shown]]
    convoys = alike(process.convoys)
    told += [_convoy(convoy, threads) for convoy, threads in convoys[:shown]]
    told += [_event_loop(loop) for loop in process.event_loops[:shown]]
    for text in told:
        paragraph(text, console)
    more = len(process.hogs) + len(convoys) + len(process.event_loops) - len(told)
    if more:
        paragraph(f"{more} more hogs, convoys and event loops: --all shows them", console)
    if told:
        console.print()


def _hog(hog: Hog) -> str:
    called = f", {hog.expression}," if hog.expression else ""
    native = f" In C: {functions_text(hog.functions, hog.samples)}." if hog.samples else ""
    if hog.speedup_bound >= _TELLING:
        native += f" If it released the GIL then, the whole would be at most {hog.speedup_bound:.2f} x as fast."
    if hog.advice:
        native += f" A collection cannot release the GIL. {hog.advice}"
    return (
        f"Hog: {site_name(hog.site)}{called} kept the GIL {plural(hog.count, 'time')} after it was asked to drop it, "
        f"for {duration(hog.ns)} in all, {duration(hog.max_ns)} at most.{native}"
    )


def _convoy(convoy: Convoy, threads: int) -> str:
    most = f", {threads} threads alike; the one that waited most" if threads > 1 else ""
    text = (
        f"Convoy: {site_name(convoy.site)}{most} made {plural(convoy.steps, 'short step')} "
        f"({convoy.steps_per_s:.1f} per second) and waited {duration(convoy.wait_p50_ns)} (median) before each, "
        f"{percent(convoy.waited_share)} of its life."
    )
    for one in convoy.estimates:
        text += (
            f" With sys.setswitchinterval({one.switch_interval_ns / 1e9:g}) about {duration(one.wait_per_step_ns)} "
            f"per step, {one.steps_per_s:.0f} steps per second."
        )
    return text


def _event_loop(loop: EventLoop) -> str:
    text = (
        f"Event loop ({loop.loop}) on {loop.thread}: waited {duration(loop.waited_ns)} for the GIL, "
        f"{duration(loop.wait_max_ns)} at most"
    )
    if loop.culprit is None:
        return f"{text}."
    return f"{text}; most of it for {site_name(loop.culprit)} ({duration(loop.culprit_ns)} in that function)."


def _print_what_if(found: WhatIf, end_of: str, console: Console) -> None:
    if found.untold_ns and found.speedup_bound < _TELLING:
        paragraph(_untold(found, end_of), console)
        return
    points = [point for point in found.by_cores if point.cores != found.cores]
    others = ", ".join(f"{point.speedup_bound:.2f} x on {point.cores}" for point in points)
    allowed = plural(found.cores, "core") if found.quota is None else f"{found.quota:g} CPUs"
    paragraph(
        f"A bound, with the CPU time of this run: at most {found.speedup_bound:.2f} x as fast on {allowed} "
        f"({duration(found.measured_ns)} would take at least {duration(found.makespan_ns)})"
        + (f"; {others}." if others else "."),
        console,
    )
    if found.woken_bound > _TELLING * found.speedup_bound:
        paragraph(
            f"At most {found.woken_bound:.2f} x if whoever was blocked in the program's own code, and went on while "
            "another thread had the GIL, waited for that one (a lock, a queue, an answer) and not for the world.",
            console,
        )
    if found.on_all is not None:
        paragraph(f"With all {found.on_all.cores} cores: at most {found.on_all.speedup_bound:.2f} x as fast.", console)
    if found.untold_ns:
        paragraph(_untold(found, end_of), console)


def _untold(found: WhatIf, end_of: str) -> str:
    """What a bound does not tell."""
    why = (
        f"The end of the {end_of} hung on the clock or on what came from outside, so how long it took says nothing of "
        "how much got done."
        if found.by_clock
        else f"The end of the {end_of} hardly hung on waits for the GIL, so it would hardly come sooner "
        f"({duration(found.measured_ns)} would take at least {duration(found.makespan_ns)})."
    )
    return (
        f"{why} But up to {duration(found.untold_ns)} of waiting for the GIL, all threads together, would be gone on "
        f"{plural(found.cores, 'core')}: what threads waited with would be done sooner."
    )


def _quality(report: Report) -> Quality:
    known = report.quality
    own = (
        f"code that giltrace runs in the program, for a collector, held the GIL for {duration(known.own_held_ns)}; "
        f"threads waited {duration(known.own_waited_ns)} for that, at lines marked [giltrace]"
    )
    in_processes = sum(process.quality.lost_events for process in report.processes)
    return Quality(
        lost=known.lost_events,
        sched_lost=max(known.lost_events - in_processes, 0),
        violations=known.violations,
        clock_error_ns=known.clock_error_ns,
        collectors=known.collectors,
        remarks=(*known.remarks, *([own] if known.own_held_ns else [])),
        sampled=known.sampled,
        lost_stacks=known.lost_stacks,
    )

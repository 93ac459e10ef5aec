"""A few lines of HTML for a notebook: per process the verdict and a table, that need nothing from elsewhere.

Colours and letters are those of the page that it is put into.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.finding_results import Finding, Verdict
from giltrace.analysis.results import ProcessReport, Report
from giltrace.analysis.summary import ProcessSummary, Summary
from giltrace.reports.html.strip import strip
from giltrace.reports.names import site_name
from giltrace.reports.thread_rows import ThreadRow, busiest, thread_rows
from giltrace.reports.tree import weight
from giltrace.text import plural
from giltrace.timeline.model import Timeline

#: So many are shown, those that used the GIL most; the rest is counted.
MOST_PROCESSES = 4
MOST_THREADS = 12

_RIGHT = ' style="text-align:right"'
_LEFT = ' style="text-align:left"'


def of_report(report: Report) -> str:
    """The verdicts, with what waits were lost to, whose and to whom."""
    shown = sorted(report.processes, key=weight, reverse=True)
    parts = [f"<p>{escape('; '.join(report.part))}</p>"] if report.part else []
    for process in shown[:MOST_PROCESSES]:
        parts.append(_verdict(process.pid, process.python, process.duration_ns, len(process.threads), process.verdict))
        parts.append(_findings(process))
    return _whole([*parts, _more(shown)])


def of_summary(summary: Summary, timeline: Timeline | None = None) -> str:
    """The verdicts, with what each thread held and waited; drawn over time, too, if the `timeline` is there."""
    drawn = timeline.processes if timeline is not None else (None,) * len(summary.processes)
    pairs = sorted(zip(summary.processes, drawn, strict=True), key=lambda pair: -weight(pair[0]))
    parts = []
    for process, model in pairs[:MOST_PROCESSES]:
        parts.append(_verdict(process.pid, process.python, process.wall_ns, len(process.threads), process.verdict))
        parts += [_culprits(process), _threads(process)]
        if model is not None and timeline is not None:
            threads = [model.chosen_threads[at] for at in busiest(process.threads, MOST_THREADS)]
            parts.append(strip(model, threads, timeline.start, timeline.end))
    return _whole([*parts, _more(pairs)])


def _whole(parts: Iterable[str]) -> str:
    return f'<div class="giltrace">{"".join(parts) or "<p>No Python process was recorded.</p>"}</div>'


def _more(processes: Sequence[object]) -> str:
    rest = len(processes) - MOST_PROCESSES
    return f"<p>{plural(rest, 'more process', 'more processes')}</p>" if rest > 0 else ""


def _verdict(pid: int, python: str, wall_ns: int, threads: int, verdict: Verdict) -> str:
    version = [f"Python {one}" for one in python.split()[:1]]
    about = ", ".join([f"process {pid}", *version, duration(wall_ns), plural(threads, "thread")])
    advice = f"<br>{escape(verdict.advice)}" if verdict.advice else ""
    told = f"<b>Verdict: {escape(verdict.kind)}</b><br>{escape(verdict.summary)}{advice}"
    return f"<p><small>{escape(about)}</small><br>{told}</p>"


def _findings(process: ProcessReport) -> str:
    total = max(process.wait_decomposition_ns.total_ns, 1)

    def cells(found: Finding) -> Iterator[str]:
        yield from (found.cause, duration(found.ns), percent(found.ns / total), duration(found.path_ns))
        yield from (site_name(found.victim), site_name(found.culprit) if found.culprit is not None else "")

    heads = ("lost to", " lost", " of all", " on the path", "by", "to")
    return _table(heads, map(cells, process.findings)) if process.findings else ""


def _culprits(process: ProcessSummary) -> str:
    """The lines for which threads waited, if that was for long."""
    waited = process.waited_ns
    rows = ((site_name(row.site), duration(row.ns), percent(row.ns / waited)) for row in process.told_culprits)
    heads = ("what had the GIL while threads waited", " waited", " of all")
    return _table(heads, rows) if process.told_culprits else ""


def _threads(process: ProcessSummary) -> str:
    def cells(row: ThreadRow) -> Iterator[str]:
        life = max(row.life_ns, 1)
        yield from (row.name, duration(row.held_ns), percent(row.held_ns / life))
        yield from (duration(row.waited_ns), percent(row.waited_ns / life), duration(row.longest_wait_ns or 0))

    shown = thread_rows(process.threads, single=True)[:MOST_THREADS]
    rest = len(process.threads) - len(shown)
    heads = ("thread", " held", " of its life", " waited", " of its life", " longest wait")
    table = _table(heads, map(cells, shown))
    return table + (f"<p>{plural(rest, 'more thread')}</p>" if rest else "")


def _table(heads: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    """A head that begins with a space stands for figures: to the right."""
    sides = [_RIGHT if head.startswith(" ") else _LEFT for head in heads]

    def row(tag: str, cells: Iterable[str]) -> str:
        made = (f"<{tag}{side}>{escape(cell.strip())}</{tag}>" for side, cell in zip(sides, cells, strict=True))
        return f"<tr>{''.join(made)}</tr>"

    body = "".join(row("td", cells) for cells in rows)
    return f"<table><thead>{row('th', heads)}</thead><tbody>{body}</tbody></table>"

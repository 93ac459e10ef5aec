"""Who made whom wait, on a terminal: the user's functions, their hottest lines, and what these led to in libraries."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from giltrace.analysis.durations import duration, percent
from giltrace.analysis.measure.sites import MOST
from giltrace.analysis.results import Blame, FunctionBlame, LineBlame, ProcessReport
from giltrace.analysis.site import Site, frame_text
from giltrace.reports.console import paragraph
from giltrace.reports.names import site_name
from giltrace.reports.pairs import print_pairs, wrapped
from giltrace.text import plural

#: So many rows are printed; the rest is counted in one line.
TOP_BLAME = 10
#: Lines with a smaller share of what their function cost are not told.
LEAST_LINE = 0.05
# The folder of a file within a frame, "function (file:line)".
_BASE = re.compile(r"\((?=/).*/")


class Detail(NamedTuple):
    """How much is told: pairs of `lines` instead of functions, what lies between them in a `library`, `everything`
    instead of the largest.
    """

    lines: bool = False
    library: bool = False
    everything: bool = False


BRIEF = Detail()


def print_blame(process: ProcessReport, console: Console, detail: Detail) -> None:
    """Print the pairs, largest first."""
    blame: Sequence[Blame | FunctionBlame] = process.blame if detail.lines else process.blame_by_function
    if not blame:
        paragraph("Nobody waited for anybody.", console)
        console.print()
        return
    shown = len(blame) if detail.everything else TOP_BLAME
    print_pairs(
        "who waited, and for whom",
        ("waited", "waits", "longest"),
        blame[:shown],
        lambda row: (duration(row.ns), str(row.waits), duration(row.max_ns)),
        lambda row, room: _pair(row, room, detail),
        console,
    )
    rest = blame[shown:]
    if rest:
        waited = duration(sum(row.ns for row in rest))
        paragraph(f"{plural(len(rest), 'more pair')}, {waited} in all; --all shows them", console)
    console.print()


def _pair(row: Blame | FunctionBlame, room: int, detail: Detail) -> Text:
    """The victim and below it the culprit."""
    if isinstance(row, Blame):
        victim, culprit, lines = site_name(row.victim), site_name(row.culprit), list[str]()
        if detail.library:
            victim, culprit = _way(row.victim, row.victim_stack), _way(row.culprit, row.culprit_stack)
    else:
        victim, _ = _function(row.victim, row.victim_lines, row.ns, detail)
        culprit, lines = _function(row.culprit, row.culprit_lines, row.ns, detail)
    pair = Text(wrapped(victim, room, "  "))
    pair.append("\n").append(wrapped(f"for {culprit}", room, "    "), style="red")
    for line in lines:
        pair.append("\n").append(wrapped(line, room, "      "), style="red")
    return pair


def _function(site: Site, lines: Sequence[LineBlame], ns: int, detail: Detail) -> tuple[str, list[str]]:
    """A function, with its line if it has but one; else its hottest lines, each with what it led to most."""
    if len(lines) == 1:
        return site_name(lines[0].site), []
    by_line: dict[int, list[LineBlame]] = {}
    for line in lines:
        by_line.setdefault(line.site.own_line or line.site.line, []).append(line)
    costs = {number: sum(part.ns for part in parts) / ns for number, parts in by_line.items()}
    least = 0 if detail.everything else LEAST_LINE
    shown = [number for number in sorted(costs, key=lambda number: -costs[number]) if costs[number] >= least]
    if len(by_line) == 1:
        (number,) = by_line
        return f"{site_name(replace(site, line=number))}{_leaf(lines)}", []
    return site_name(site), [f"{percent(costs[number])} line {number}{_leaf(by_line[number])}" for number in shown]


def _leaf(lines: Sequence[LineBlame]) -> str:
    """What one own line led to, largest first: nothing if most of it happened there.

    Where the largest is not most of it, the number of places comes first: it would hide the others.
    """
    site = lines[0].site
    if not site.own_function or site.leaf == site.where:
        return ""
    share = lines[0].ns / max(sum(line.ns for line in lines), 1)
    if share < MOST:
        return f" [{len(lines)} places, {percent(share)} of it {site.leaf}]"
    others = f" and {plural(len(lines) - 1, 'other')}" if len(lines) > 1 else ""
    return f" [{site.leaf}{others}]"


def _way(site: Site, stack: Sequence[str]) -> str:
    """A site with all calls between the own line and the leaf."""
    own = frame_text((site.own_function, site.own_file, site.own_line))
    if own not in stack:
        return site_name(site)
    way = " > ".join(_BASE.sub("(", frame) for frame in reversed(stack[: stack.index(own) + 1]))
    return f"{site.thread}: {way}"

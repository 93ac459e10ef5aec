"""Totals as a table on a terminal, as `giltrace top` looks: figures of the last interval, and a minute's graph."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from rich.text import Text

from giltrace.analysis.durations import duration, percent
from giltrace.metrics.reading import MAIN_GIL, Counts, LineReading, RoleReading, of_gils
from giltrace.metrics.totals import Totals
from giltrace.reports.console import console
from giltrace.text import cut, plural, visible
from giltrace.views.ending import Ending
from giltrace.views.top.graph import Ink, draw, fit
from giltrace.views.top.model import BUCKET_NS, MINUTE_NS, Graph
from giltrace.views.top.terminal import Terminal

_AXIS = 5
_KEYS = "q quit   f freeze"
#: Rows of lines that each table has at least, and at most.
_FEWEST, _MOST = 2, 12


class Table:
    """Shows what it is told on the terminal, until somebody quits. Raises `UsageError` without a terminal."""

    def __init__(self, title: str, ending: Ending) -> None:
        self._terminal = Terminal(console(), ending, _NO_TERMINAL)
        self._title = title
        self._before: Totals | None = None
        self._graph: list[tuple[float, float]] = []
        self._frozen = False
        self._page: list[Text] = []
        self.quit = False
        self.notice = ""
        self._begun = False

    def begin(self, totals: Callable[[], Totals], first: Totals) -> None:
        """Take the terminal."""
        self._before = first
        self._terminal.__enter__()
        self._begun = True

    def tell(self, totals: Totals) -> None:
        """Show this from now on."""
        new = totals.since(self._before)
        self._graph += [_shares(new)] * max(round((new.at_ns - new.started_ns) / BUCKET_NS), 1)
        del self._graph[: -MINUTE_NS // BUCKET_NS]
        self._before = totals
        if not self._frozen:
            size = os.get_terminal_size()
            graph = Graph(tuple(one for one, _ in self._graph), tuple(other for _, other in self._graph))
            shown = self._terminal.console
            ink = Ink(shown.color_system is not None, shown.encoding.startswith("utf"))
            shown.width = max(size.columns, 20)
            self._page = page(self._title, self.notice, totals, new, graph, ink, shown.width, max(size.lines, 6))
            self._terminal.show(self._page)

    def wait(self, until: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until then (as `time.monotonic`), until somebody quits or a signal comes; do something `meanwhile`."""
        while time.monotonic() < until and not self.quit and self._terminal.ending.signal is None:
            meanwhile()
            key = self._terminal.key(until)
            self.quit = key in ("q", "Q")
            if key in ("f", "space"):
                self._frozen = not self._frozen

    def close(self) -> None:
        """Give the terminal back."""
        if self._begun:
            self._terminal.__exit__(None, None, None)


_NO_TERMINAL = (
    "the table needs a terminal",
    "use --json for programs, --listen for Prometheus, --otlp for OpenTelemetry",
)


def _shares(new: Totals) -> tuple[float, float]:
    """The time that GILs were held, and that at most of it while somebody waited, as shares of all their time.

    Where processes have several, it is those of the number that is held most.
    """
    possible = max((new.at_ns - new.started_ns) * max(len(new.processes), 1), 1)
    counts = max(of_gils(new.roles).values(), key=lambda one: one.held_ns, default=Counts())
    return min(counts.held_ns / possible, 1.0), min(min(counts.held_ns, counts.waited_ns) / possible, 1.0)


def page(
    title: str, notice: str, totals: Totals, new: Totals, graph: Graph, ink: Ink, width: int, height: int
) -> list[Text]:
    """The page as lines: the sums, and what is `new` in the last interval."""
    lines = _top(title, totals, new, width)
    rows = 3 if height < 20 else 5 if height < 34 else 8
    lines += [Text(visible(notice), "yellow")] if notice else []
    lines += _drawn(graph, ink, width, rows)
    tables: list[tuple[str, tuple[LineReading, ...]]] = [
        ("had the GIL while others waited", new.culprits),
        ("waited for the GIL", new.victims),
        ("slept in a lock", new.blocked),
    ]
    told = [(what, found) for what, found in tables if found]
    room = height - len(lines) - 1
    each = min(max((room - len(new.roles) - 1) // max(len(told), 1) - 1, _FEWEST), _MOST)
    seconds = max((new.at_ns - new.started_ns) / 1e9, 1e-9)
    lines += _roles(new, seconds, width, max(room - (each + 1) * len(told) - 1, 1))
    for what, found in told:
        lines += _lines(what, found[:each], seconds, width)
    lines = lines[: height - 1]
    lines += [Text("")] * (height - 1 - len(lines))
    return [fit(line, width) for line in [*lines, Text(f"{_KEYS:<{width}}", "reverse")]]


def _top(title: str, totals: Totals, new: Totals, width: int) -> list[Text]:
    count = len(totals.processes)
    which = f"  pid {totals.processes[0].pid}" if count == 1 else f"  {plural(count, 'process', 'processes')}"
    held, _ = _shares(new)
    counts = new.counts
    seconds = max((new.at_ns - new.started_ns) / 1e9, 1e-9)
    longest = max((role.counts.longest_wait_ns for role in totals.roles), default=0)
    lines = [
        Text.assemble(("giltrace metrics ", "bold"), cut(visible(title), max(width - 40, 10)), which),
        Text.assemble(
            *("held ", (percent(held), "green"), "  ", (f"{counts.waited_ns / seconds / 1e9:.1f} waiting", "red")),
            f"  longest wait {duration(longest)}  {counts.holds / seconds:,.0f} holds/s"
            f"  counted for {duration(totals.at_ns - totals.started_ns)}",
        ),
    ]
    if totals.lost:
        lines.append(Text(f"{plural(totals.lost, 'thread')} found no room to count in: figures are too low", "yellow"))
    lines += [Text(visible(f"not counted here: {why}"), "yellow") for why in totals.refused[:1]]
    notes = [one.note for one in totals.processes if one.note]
    if notes and not counts.holds:
        lines.append(Text(visible(notes[0]), "yellow"))
    return lines


def _drawn(graph: Graph, ink: Ink, width: int, rows: int) -> list[Text]:
    drawn = draw(graph, width - _AXIS, rows, ink)
    labels = {0: "100%", rows - 1: "  0%"}
    lines = [Text(f"{labels.get(at, ''):<{_AXIS}}").append_text(line) for at, line in enumerate(drawn)]
    under = max(len(drawn[0]) if drawn else 0, 20)
    return [*lines, Text(f"{'':<{_AXIS}}{'60 s ago':<{under - 3}}now", "dim")]


def _roles(new: Totals, seconds: float, width: int, room: int) -> list[Text]:
    name = 22 if width < 100 else 30
    several = any(role.gil != MAIN_GIL for role in new.roles)
    what = "role, GIL" if several else "role"
    header = f" {what:<{name}} {'threads':>7} {'held':>6} {'WAITED':>6} {'longest':>8} {'in locks':>8} {'holds/s':>8}"
    lines = [Text(f"{header:<{width}}", "reverse")]
    rows = sorted(new.roles, key=lambda role: (-role.counts.waited_ns, -role.counts.held_ns))
    lines += [_role(role, seconds, name, several) for role in rows[:room]]
    if len(rows) > room:
        more = f" +{len(rows) - room} more"
        lines[0] = Text(lines[0].plain[: max(width - len(more), 0)] + more, "reverse")
    return lines


def _role(role: RoleReading, seconds: float, name: int, several: bool) -> Text:
    counts: Counts = role.counts
    span = seconds * 1e9
    gil = f", {role.gil}" if several else ""
    line = Text(f" {cut(visible(role.role), name - len(gil)) + gil:<{name}} {role.threads:>7} ")
    line.append(f"{percent(counts.held_ns / span):>6} {percent(counts.waited_ns / span):>6} ")
    line.append(f"{duration(counts.longest_wait_ns or None):>8} {percent(counts.blocked_ns / span):>8} ")
    line.append(f"{counts.holds / seconds:>8,.0f}")
    if not role.threads:
        line.stylize("dim")
    return line


def _lines(what: str, found: tuple[LineReading, ...], seconds: float, width: int) -> list[Text]:
    header = f" {'per s':>9}  line that {what}"
    lines = [Text(f"{header:<{width}}", "reverse")]
    for one in found:
        collecting = ", collecting garbage" if one.collecting else ""
        known = f"{one.function} ({one.file.rpartition('/')[2]}:{one.line}){collecting}"
        place = known if one.function else one.place
        lines.append(Text(f" {duration(one.ns / seconds):>9}  {cut(visible(place), max(width - 12, 8))}"))
    return lines

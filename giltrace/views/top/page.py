"""The pages of the live view as lines of text; pure functions of what is shown and of the room there is."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from rich.text import Text

from giltrace.analysis.durations import duration, percent
from giltrace.reports.names import shortened
from giltrace.reports.thread_rows import MOST_SINGLE
from giltrace.text import visible
from giltrace.views.top.graph import Ink, draw, fit, spark
from giltrace.views.top.model import Culprit, Detail, Line, Snapshot, Sort, ThreadRow, ThreadState
from giltrace.views.top.rows import Role, listed

#: The spans that the figures may cover.
SPANS_NS = (5_000_000_000, 15_000_000_000, 60_000_000_000)

_STATE_STYLE = {
    ThreadState.HOLDING: "green",
    ThreadState.WAITING: "red",
    ThreadState.RUNNING: "cyan",
    ThreadState.ENDED: "dim",
}
_AXIS = 5
#: Characters that a line in a library has at least, beside the user's own.
_LEAST_LEAF = 12


@dataclass
class View:
    """What the person looking on has chosen; `selected` is the ident of a row, `pid` None for all processes.

    Rows are those of `rows.listed`; what is `sought` is being typed, or in force.
    """

    title: str
    sort: Sort = Sort.WAITING
    span_ns: int = SPANS_NS[0]
    frozen: bool = False
    selected: int | None = None
    pid: int | None = None
    recording: str = ""
    notice: str = ""
    single: bool = False
    role: Role | None = None
    sought: str = ""
    typing: bool = False

    def rows(self, snapshot: Snapshot) -> tuple[ThreadRow, ...]:
        """The rows of threads that are to be listed."""
        return listed(snapshot.threads, self.sort, sought=self.sought, role=self.role, single=self.single)


#: Terms and what they mean.
HELP = (
    (
        "graph",
        "share of the last minute in which the GIL was held; red (the solid part without colours): somebody waited for "
        "it. Of several GILs, the busiest counts at each moment.",
    ),
    (
        "threads",
        "held, waiting: shares of the span (w changes it). worst: the longest wait for the GIL. line: where the thread "
        "stood when it last gave the GIL up, or was read while it holds it. One that did not use the GIL meanwhile is "
        f"not listed. Of more than {MOST_SINGLE}, those of a role share a row: sums, of waiting the mean, the worst "
        "wait.",
    ),
    (
        "state",
        "holding, waiting: the GIL. Off it: running, in lock, blocked; ended. 0.1 s old, all else is exact. A deadlock "
        "is told on top.",
    ),
    ("culprits", "lines that held the GIL while others waited, by the time they cost"),
    ("", ""),
    ("s", "sort by waiting, held, worst wait, name"),
    ("w", "span of the figures: 5 s, 15 s, 60 s"),
    ("up, down", "choose a row (also k, j; page up and down)"),
    ("Enter", "look at a thread closely, or list the threads of a role; Esc: back"),
    ("t", "each thread in a row of its own, or roles"),
    ("/", "list only what has a text in its name, line or id; Esc: all"),
    ("p", "one process after the other, then all"),
    ("f, space", "freeze the screen, go on"),
    ("r", "start a recording, stop it"),
    ("h, ?", "this page"),
    ("q, Ctrl-C", "quit"),
)
#: So many processes with a deadlock are told of.
_DEADLOCKS = 2
#: Columns that a term takes.
_TERM = 11


def main_page(snapshot: Snapshot, view: View, ink: Ink, width: int, height: int) -> list[Text]:
    """The overview; `height` 0 shows everything there is, without a graph."""
    lines = [*_top(snapshot, view, width), *_deadlocks(snapshot, width), *_notes(snapshot, view)]
    if height:
        rows = 3 if height < 20 else 5 if height < 34 else 8
        lines += _graph(snapshot, ink, width, rows)
    room = height - len(lines) - 1 if height else 0
    culprits = min(len(snapshot.culprits), max(min(room // 3, 12), 2)) if height else 10
    threads = max(room - culprits - 2, 1) if height else len(snapshot.threads)
    lines += _threads(snapshot, view, ink, width, threads)
    if height:
        lines += [Text("")] * (height - 2 - culprits - len(lines))
    lines += _culprits(snapshot.culprits[:culprits], width)
    if height:
        lines = [*lines[: height - 1], _keys(view, width)]
    return [fit(line, width) for line in lines]


def detail_page(detail: Detail, view: View, ink: Ink, width: int, height: int) -> list[Text]:
    """One thread, closely."""
    row = detail.row
    lines = [
        Text.assemble(
            (f"thread {_cut(row.name, width)}", "bold"), f"  tid {row.tid}  pid {row.pid}  ", _state(row), _core(row)
        ),
        Text(f"held   {percent(row.held):>6} in {row.holds} holds, {row.forced} of them ended by force"),
        Text(f"waited {percent(row.waiting):>6} in {row.waits} waits, the longest {duration(row.worst_ns)}"),
        Text(""),
        Text.assemble("held    ", (spark(detail.graph.held, width - 8, ink), "green")),
        Text.assemble("waiting ", (spark(detail.graph.contended, width - 8, ink), "red")),
        Text(""),
        *_culprits(detail.culprits[: max(height // 5, 2)], width, "what it waited for"),
        Text(""),
        Text("newest stack (innermost first)", "bold"),
    ]
    stack = [Text("  " + _place(line, width - 2)) for line in detail.stack] or [Text("  not known yet")]
    lines += stack
    lines = lines[: height - 1] + [Text("")] * (height - 1 - len(lines))
    return [fit(line, width) for line in [*lines, _keys(view, width)]]


def help_page(width: int, height: int, first: int = 0) -> list[Text]:
    """The words and the keys, from line `first` on; what has no room comes on the next page (`help_pages`)."""
    every = _help_lines(width)
    lines = [Text(line) for line in every[first : first + height - 1]]
    lines += [Text("")] * (height - 1 - len(lines))
    key = "any key goes on" if first + height - 1 < len(every) else "any key goes back"
    return [fit(line, width) for line in [*lines, Text(key, "reverse")]]


def help_pages(width: int, height: int) -> range:
    """The first lines of the pages that the help takes."""
    return range(0, len(_help_lines(width)), height - 1)


def _help_lines(width: int) -> list[str]:
    """The help in so many columns; short of a few words' room, cut."""
    wide = max(width, 2 * _TERM)
    lines = []
    for term, text in HELP:
        lines += textwrap.wrap(text, wide, initial_indent=f"{term:<{_TERM}}", subsequent_indent=" " * _TERM) or [""]
    return lines


def _top(snapshot: Snapshot, view: View, width: int) -> list[Text]:
    title = Text.assemble(("giltrace top ", "bold"), _cut(view.title, width))
    pids = [process.pid for process in snapshot.processes]
    title.append(f"  pid {pids[0]}" if len(pids) == 1 else f"  {len(pids)} processes, {snapshot.gils} GILs")
    marks = []
    if view.pid is not None and len(pids) == 1:
        marks.append((" this process only ", "reverse"))
    if view.role is not None:
        marks.append((f" {visible(view.role[1])} only ", "reverse"))
    if view.sought and not view.typing:
        marks.append((f" /{visible(view.sought)} ", "reverse"))
    if view.frozen:
        marks.append((" FROZEN ", "reverse"))
    if view.recording:
        marks.append((f" REC {visible(view.recording)} ", "bold red reverse"))
    mark = Text(" ").join(Text(text, style) for text, style in marks)
    title.truncate(max(width - len(mark) - 1, 10))
    title.append_text(Text(" ") if marks else Text(""))
    title.append_text(mark)
    seconds = snapshot.span_ns / 1e9
    stats = Text.assemble(
        "held ",
        (percent(snapshot.held), "green"),
        "  contended ",
        (percent(snapshot.contended), "red"),
        f"  {snapshot.waiting:.1f} waiting  worst {duration(snapshot.worst_ns)}  "
        f"{snapshot.acquires / seconds:,.0f} acquires/s",
    )
    return [title, stats]


def _deadlocks(snapshot: Snapshot, width: int) -> list[Text]:
    """A sentence on each, and what to do about it; of several processes those that are certain first."""
    lines = []
    several = len(snapshot.processes) > 1
    for one in sorted(snapshot.deadlocks, key=lambda one: not one.certain)[:_DEADLOCKS]:
        told = f"pid {one.pid}: {one.told}" if several else one.told
        for text, style in ((told, "bold red" if one.certain else "bold yellow"), (one.advice, "")):
            lines += [Text(line, style) for line in textwrap.wrap(visible(text), max(width, 2 * _TERM))]
    return lines


def _notes(snapshot: Snapshot, view: View) -> list[Text]:
    notes = [Text(visible(view.notice), "yellow")] if view.notice else []
    if snapshot.processes and all(process.note for process in snapshot.processes) and not snapshot.acquires:
        notes.append(Text(visible(snapshot.processes[0].note), "yellow"))
    if snapshot.lost or snapshot.missed:
        lost = f"{snapshot.lost} events lost" if snapshot.lost else ""
        missed = f"{snapshot.missed} chunks overwritten before they were read" if snapshot.missed else ""
        notes.append(Text(", ".join(filter(None, (lost, missed))) + ": figures may be too low", "yellow"))
    if snapshot.lost_stacks:
        notes.append(Text(f"{snapshot.lost_stacks} stacks lost: lines may be missing", "yellow"))
    return notes


def _graph(snapshot: Snapshot, ink: Ink, width: int, rows: int) -> list[Text]:
    drawn = draw(snapshot.graph, width - _AXIS, rows, ink)
    labels = {0: "100%", rows - 1: "  0%"}
    lines = [Text(f"{labels.get(at, ''):<{_AXIS}}").append_text(line) for at, line in enumerate(drawn)]
    under = max(len(drawn[0]) if drawn else 0, 20)
    return [*lines, Text(f"{'':<{_AXIS}}{'60 s ago':<{under - 3}}now", "dim")]


def _threads(snapshot: Snapshot, view: View, ink: Ink, width: int, room: int) -> list[Text]:
    name = 16 if width < 100 else 24
    several = len({row.pid for row in snapshot.threads}) > 1
    pid = f"{'pid':>7} " if several else ""
    # What they are sorted by stands in capitals.
    title = {sort: sort.value.upper() if sort is view.sort else sort.value for sort in Sort}
    title[Sort.NAME] = "THREAD" if view.sort is Sort.NAME else "thread"
    header = f" {title[Sort.NAME]:<{name}} {pid}{'state':<8} {title[Sort.HELD]:>6} {title[Sort.WAITING]:>7}"
    header += f" {title[Sort.WORST]:>8} {'core':>4} "
    span = f"line, last {snapshot.span_ns / 1e9:.0f} s"
    lines = [Text(f"{header}{span:<{max(width - len(header), 0)}}", "reverse")]
    rows = view.rows(snapshot)
    # What tells the threads of a pool apart stands at the end of their names.
    short = shortened([visible(row.name) for row in rows], name)
    first = 0
    chosen = next((at for at, row in enumerate(rows) if row.ident == view.selected), None)
    if chosen is not None and chosen >= room:
        first = chosen - room + 1
    for row in rows[first : first + room]:
        line = Text(">", "bold") if row.ident == view.selected else Text(" ")
        line.append(f"{_cut(short[visible(row.name)], name):<{name}} ")
        line.append(f"{row.pid:>7} " if several else "")
        line.append_text(_state(row))
        line.append(f"{percent(row.held):>6} {percent(row.waiting):>7} {duration(row.worst_ns or None):>8}")
        line.append_text(_core(row))
        line.append(_places(row.own_line, row.line, max(width - len(line), 0)))
        if row.state is ThreadState.ENDED:
            line.stylize("dim")
        lines.append(line)
    # Of threads that were left out it is not known whether they are looked for.
    left_out = 0 if view.sought or view.role else snapshot.more_threads
    hidden = len(rows) - len(rows[first : first + room]) + left_out
    if hidden:
        more = f" +{hidden} more"
        lines[0] = Text(lines[0].plain[: max(width - len(more), 0)] + more, "reverse")
    return lines


def _culprits(culprits: tuple[Culprit, ...], width: int, title: str = "culprit: held the GIL meanwhile") -> list[Text]:
    header = f" waits per s {'longest':>8}  "
    lines = [Text(f"{header}{title:<{max(width - len(header), 0)}}", "reverse")]
    for one in culprits:
        figures = f" {duration(one.cost * 1e9):>11} {duration(one.worst_ns):>8}  "
        lines.append(Text(figures + (_places(one.own_line, one.line, width - len(figures)) or "(line not known)")))
    return lines


def _keys(view: View, width: int) -> Text:
    keys = "q quit  s sort  w span  / find  f freeze  arrows, Enter thread  r record  h help"
    if view.typing:
        keys = f"/{visible(view.sought)}_   Enter: list only these; Esc: all"
    return Text(f"{keys:<{width}}", "reverse")


def _state(row: ThreadRow) -> Text:
    return Text(f"{row.state.value:<8} ", _STATE_STYLE.get(row.state, ""))


def _core(row: ThreadRow) -> Text:
    return Text(f" {row.core if row.core >= 0 else '-':>4} ")


def _places(own: Line, leaf: Line, width: int) -> str:
    """The user's own line, and in brackets the one that it led to, as far as there is room for that."""
    text = _place(own if own.function else leaf, width)
    room = width - len(text) - 3
    if not own.function or own == leaf or room < _LEAST_LEAF:
        return text
    return f"{text} [{_place(leaf, room)}]"


def _place(line: Line, width: int) -> str:
    """The line in so many characters: the function gives way first, then the file."""
    line = Line(visible(line.function), visible(line.file), line.number)
    text = str(line)
    if len(text) <= width or not text:
        return text
    place = line.file.rpartition("/")[2] + (f":{line.number}" if line.number > 0 else "")
    return f"{_cut(line.function, width - len(place) - 3)} ({place})" if len(place) + 6 <= width else place[:width]


def _cut(text: str, width: int) -> str:
    text = visible(text)
    return text if len(text) <= width else text[: max(width - 1, 0)] + "~"

"""The table of a process's threads on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from giltrace.analysis.durations import duration
from giltrace.analysis.summary import ThreadSummary
from giltrace.reports.names import shortened
from giltrace.reports.thread_rows import MOST_SINGLE, ThreadRow, thread_rows
from giltrace.timeline.model import State

#: So many rows are printed; the rest is folded into one.
TOP_THREADS = MOST_SINGLE
#: From this width on, durations keep the space before their unit.
WIDE = 104
_LEAST_NAME = 12
#: Whoever reads a share wants to know of what, and the second line is there anyway.
_FIRST_HEADING = "%: of life\nthread"

_HEADINGS = (
    "holds",
    "held",
    "%",
    "waits",
    "waited",
    "%",
    "max\nwait",
    "for-\nced",
    "off-GIL\nrunning",
    "off-GIL\nblocked",
)


def _cells(row: ThreadRow, *, wide: bool) -> list[str]:
    def time(ns: int | None) -> str:
        return duration(ns) if wide else duration(ns).replace(" ", "")

    life = max(row.life_ns, 1)
    return [
        _count(row.holds),
        time(row.held_ns),
        f"{row.held_ns / life * 100:.0f}",
        _count(row.waits),
        time(row.waited_ns),
        f"{row.waited_ns / life * 100:.0f}",
        time(row.longest_wait_ns),
        _count(row.forced),
        time(row.states_ns.get(State.OFF_RUNNING)),
        time(row.states_ns.get(State.OFF_BLOCKED)),
        _ranges(row.cores),
    ]


def thread_table(threads: Sequence[ThreadSummary], width: int, *, everything: bool = False) -> Table:
    """The table in `width` columns, those that used the GIL most first.

    Shares are of the threads' lives. Of more threads than there are rows those of a role share one; `everything` gives
    each thread its own.
    """
    ranked = thread_rows(threads, single=everything)
    shown = ranked if everything else ranked[:TOP_THREADS]
    rest = tuple(one for row in ranked[len(shown) :] for one in row.threads)
    if rest:
        shown = [*shown, ThreadRow(f"{len(rest)} more", rest)]
    wide = width >= WIDE
    cells = [_cells(row, wide=wide) for row in shown]
    taken = [
        max(map(len, (*heading.split("\n"), *column))) for heading, *column in zip(_HEADINGS, *cells, strict=False)
    ]
    cores = max(map(len, ("cores", *(row[-1] for row in cells))))
    room = max(width - sum(taken) - len(taken) - cores - 1, _LEAST_NAME)
    named = shortened([row.name for row in shown], room)
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(_FIRST_HEADING, no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("cores", no_wrap=True)
    for row, figures in zip(shown, cells, strict=True):
        table.add_row(Text(named[row.name]), *map(Text, figures))
    return table


def _count(count: int) -> str:
    if count < 100_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 9_999_500 else f"{count / 1e6:.0f}M"


def _ranges(cores: Sequence[int]) -> str:
    """``0-3,6`` for cores 0, 1, 2, 3 and 6; their number where that would be long."""
    parts: list[list[int]] = []
    for core in cores:
        if parts and core == parts[-1][-1] + 1:
            parts[-1].append(core)
        else:
            parts.append([core])
    told = ",".join(str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" for part in parts)
    return told if len(told) <= 5 else f"{len(cores)} x"

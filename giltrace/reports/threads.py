"""The table of a process's threads: those that do the same work in one row, where there are many."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from giltrace.analysis.durations import duration
from giltrace.analysis.summary import ThreadSummary
from giltrace.reports.names import shortened

#: So many rows are printed; the rest is folded into one. Of more threads, those of a role share one.
TOP_THREADS = 12
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


@dataclass(frozen=True)
class _Row:
    """What one thread, or several together, did; what is not known is None."""

    name: str
    threads: tuple[ThreadSummary, ...]

    @property
    def use(self) -> int:
        return self.held + self.waited

    @property
    def held(self) -> int:
        return sum(one.held_ns for one in self.threads)

    @property
    def waited(self) -> int:
        return sum(one.waited_ns for one in self.threads)

    def cells(self, *, wide: bool) -> list[str]:
        def time(ns: int | None) -> str:
            return duration(ns) if wide else duration(ns).replace(" ", "")

        def off(known: Sequence[int | None]) -> int | None:
            counted = [ns for ns in known if ns is not None]
            return sum(counted) if counted else None

        life = max(sum(one.life_ns for one in self.threads), 1)
        longest = max((one.longest_wait_ns for one in self.threads if one.waits), default=None)
        return [
            _count(sum(one.holds for one in self.threads)),
            time(self.held),
            f"{self.held / life * 100:.0f}",
            _count(sum(one.waits for one in self.threads)),
            time(self.waited),
            f"{self.waited / life * 100:.0f}",
            time(longest),
            _count(sum(one.forced_releases for one in self.threads)),
            time(off([one.off_running_ns for one in self.threads])),
            time(off([one.off_blocked_ns for one in self.threads])),
            _ranges(sorted({core for one in self.threads for core in one.cores})),
        ]


def thread_table(threads: Sequence[ThreadSummary], width: int, *, everything: bool = False) -> Table:
    """The table in `width` columns, those that used the GIL most first.

    Shares are of the threads' lives. Of more threads than there are rows those of a role share one; `everything` gives
    each thread its own.
    """
    ranked = sorted(_rows(threads, everything), key=lambda row: -row.use)
    shown = ranked if everything else ranked[:TOP_THREADS]
    rest = tuple(one for row in ranked[len(shown) :] for one in row.threads)
    if rest:
        shown = [*shown, _Row(f"{len(rest)} more", rest)]
    wide = width >= WIDE
    cells = [row.cells(wide=wide) for row in shown]
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


def _rows(threads: Sequence[ThreadSummary], everything: bool) -> list[_Row]:
    if everything or len(threads) <= TOP_THREADS:
        return [_Row(one.name or f"tid {one.tid}", (one,)) for one in threads]
    by_role = defaultdict[str, list[ThreadSummary]](list)
    for one in threads:
        by_role[one.role or one.name].append(one)
    return [
        _Row(f"{role} ({len(those)})" if len(those) > 1 else those[0].name or f"tid {those[0].tid}", tuple(those))
        for role, those in by_role.items()
    ]


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

"""The processes of a recording as a tree: who started whom, what each runs, and what the GIL cost it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table
from rich.text import Text

from giltrace.analysis.durations import duration
from giltrace.analysis.measure.commands import words_of
from giltrace.analysis.results import ProcessReport
from giltrace.reports.names import shortened
from giltrace.reports.summary import paragraph, print_table

#: So many lines are printed; what is left is counted in one.
MOST_LINES = 16
_LEAST_NAME = 16
_NUMBER = re.compile(r"\d+")
_HEADINGS = ("threads", "held", "waited", "longest\nwait")


@dataclass
class _Branch:
    """A process, or several that run the same, and what they started."""

    processes: list[ProcessReport]
    below: list[_Branch] = field(default_factory=list)

    @property
    def weight(self) -> int:
        return sum(map(weight, self.processes)) + sum(branch.weight for branch in self.below)


def weight(process: ProcessReport) -> int:
    """How much it used the GIL: the time held and waited, in ns."""
    return sum(thread.held_ns + thread.waited_ns for thread in process.threads)


def print_overview(
    processes: Sequence[ProcessReport], gils_at_once: float, console: Console, *, everything: bool = False
) -> None:
    """Print the tree, the busiest first; equal workers share a line unless `everything` is asked for."""
    lines = list(_lines(_tree(processes, together=not everything), 0))
    shown = lines if everything else lines[:MOST_LINES]
    figures = [_figures(branch.processes) for _, branch in shown]
    taken = [
        max(map(len, (*heading.split("\n"), *column))) for heading, *column in zip(_HEADINGS, *figures, strict=True)
    ]
    verdicts = [_verdicts(branch.processes) for _, branch in shown]
    room = console.width - 1 - sum(taken) - max(map(len, verdicts)) - 2 * len(taken) - 2
    heads = ["  " * (depth + 1) + _which(branch.processes) for depth, branch in shown]
    width = max(room - max(map(len, heads)) - 1, _LEAST_NAME)
    runs = [_runs(branch.processes) for _, branch in shown]
    named = shortened(runs, width)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("  process", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for head, run, verdict, cells in zip(heads, runs, verdicts, figures, strict=True):
        table.add_row(*map(Text, (f"{head} {named[run]}", verdict, *cells)))
    print_table(table, console)
    if len(lines) > len(shown):
        left = sum(len(branch.processes) for _, branch in lines[len(shown) :])
        paragraph(f"{left} more processes; --all shows them", console)
    paragraph(f"Each has a GIL of its own; {gils_at_once:.1f} GILs were held at once on average.", console)
    console.print()


def _tree(processes: Sequence[ProcessReport], *, together: bool) -> list[_Branch]:
    """The processes below those that started them; what is started by none of them is on top."""
    branches = [_Branch([process]) for process in processes]
    of_pid: dict[int, _Branch] = {}
    for branch, process in zip(branches, processes, strict=True):
        of_pid.setdefault(process.pid, branch)
    top = []
    for branch, process in zip(branches, processes, strict=True):
        above = of_pid.get(process.ppid)
        # A pid may have been used again, by a process that the first one then seems to descend from.
        if above is None or above is branch or _reaches(branch, above):
            top.append(branch)
        else:
            above.below.append(branch)
    return _sorted(top, together)


def _reaches(branch: _Branch, other: _Branch) -> bool:
    left = [branch]
    while left:
        one = left.pop()
        if one is other:
            return True
        left += one.below
    return False


def _sorted(branches: Iterable[_Branch], together: bool) -> list[_Branch]:
    """Siblings by weight; those that started nothing and run the same are one."""
    alike = defaultdict[object, list[_Branch]](list)
    for branch in branches:
        branch.below = _sorted(branch.below, together)
        single = not together or branch.below
        alike[id(branch) if single else _pattern(branch.processes[0])].append(branch)
    joined = [
        _Branch([one for branch in those for one in branch.processes], those[0].below) for those in alike.values()
    ]
    return sorted(joined, key=lambda branch: -branch.weight)


def _lines(branches: Sequence[_Branch], depth: int) -> Iterable[tuple[int, _Branch]]:
    for branch in branches:
        yield depth, branch
        yield from _lines(branch.below, depth + 1)


def _command(process: ProcessReport) -> str:
    return " ".join(words_of(process.cmdline))


def _pattern(process: ProcessReport) -> str:
    """What it runs, but for numbers: pipes and the like, of which each worker has its own."""
    return _NUMBER.sub("*", _command(process))


def _which(processes: Sequence[ProcessReport]) -> str:
    return str(processes[0].pid) if len(processes) == 1 else f"{len(processes)} x"


def _runs(processes: Sequence[ProcessReport]) -> str:
    """What they run, without the numbers in which they differ."""
    words = zip(*(_command(process).split() for process in processes), strict=True)
    return " ".join(one[0] if len(set(one)) == 1 else _NUMBER.sub("*", one[0]) for one in words)


def _verdicts(processes: Sequence[ProcessReport]) -> str:
    (kind, _), *others = Counter(process.verdict.kind for process in processes).most_common()
    return f"{kind} +{len(others)}" if others else kind


def _figures(processes: Sequence[ProcessReport]) -> list[str]:
    threads = [thread for process in processes for thread in process.threads]
    times = (
        sum(thread.held_ns for thread in threads),
        sum(thread.waited_ns for thread in threads),
        max((thread.wait_max_ns for thread in threads), default=0),
    )
    return [str(len(threads)), *map(duration, times)]

"""The processes of a recording as a tree: who started whom, equal workers together, the busiest first."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from giltrace.analysis.measure.commands import words_of
from giltrace.analysis.summary import ProcessSummary

if TYPE_CHECKING:
    from giltrace.analysis.results import ProcessReport, ThreadReport

_NUMBER = re.compile(r"\d+")


@dataclass
class Branch:
    """A process, or several that run the same, and what they started; times in ns, of all of them."""

    processes: list[ProcessReport]
    below: list[Branch] = field(default_factory=list)

    @property
    def weight(self) -> int:
        """How much these and what they started used the GIL."""
        return sum(map(weight, self.processes)) + sum(branch.weight for branch in self.below)

    @property
    def threads(self) -> list[ThreadReport]:
        """Their threads."""
        return [thread for process in self.processes for thread in process.threads]

    @property
    def held_ns(self) -> int:
        """How long they held their GILs."""
        return sum(thread.held_ns for thread in self.threads)

    @property
    def waited_ns(self) -> int:
        """How long their threads waited."""
        return sum(thread.waited_ns for thread in self.threads)

    @property
    def wait_max_ns(self) -> int:
        """The longest wait of them all."""
        return max((thread.wait_max_ns for thread in self.threads), default=0)

    @property
    def which(self) -> str:
        """Its pid, or how many they are."""
        return str(self.processes[0].pid) if len(self.processes) == 1 else f"{len(self.processes)} x"

    @property
    def runs(self) -> str:
        """What they run, without the numbers in which they differ."""
        words = zip(*(_command(process).split() for process in self.processes), strict=True)
        return " ".join(one[0] if len(set(one)) == 1 else _NUMBER.sub("*", one[0]) for one in words)

    @property
    def verdicts(self) -> str:
        """The most frequent kind of their verdicts, and how many others there are."""
        (kind, _), *others = Counter(process.verdict.kind for process in self.processes).most_common()
        return f"{kind} +{len(others)}" if others else kind


def weight(process: ProcessReport | ProcessSummary) -> int:
    """How much it used the GIL: the time held and waited, in ns."""
    return sum(thread.held_ns + thread.waited_ns for thread in process.threads)


def process_tree(processes: Sequence[ProcessReport], *, together: bool = True) -> list[tuple[int, Branch]]:
    """The lines of the tree and how deep each is: a process below the one that started it, if that is there.

    Siblings that started nothing and run the same are one branch, if they are to be put `together`.
    """
    branches = [Branch([process]) for process in processes]
    of_pid: dict[int, Branch] = {}
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
    return list(_lines(_sorted(top, together), 0))


def _reaches(branch: Branch, other: Branch) -> bool:
    left = [branch]
    while left:
        one = left.pop()
        if one is other:
            return True
        left += one.below
    return False


def _sorted(branches: Iterable[Branch], together: bool) -> list[Branch]:
    """Siblings by weight; those that started nothing and run the same are one."""
    alike = defaultdict[object, list[Branch]](list)
    for branch in branches:
        branch.below = _sorted(branch.below, together)
        single = not together or branch.below
        alike[id(branch) if single else _pattern(branch.processes[0])].append(branch)
    joined = [
        Branch(sorted((one for branch in those for one in branch.processes), key=weight, reverse=True), those[0].below)
        for those in alike.values()
    ]
    return sorted(joined, key=lambda branch: -branch.weight)


def _lines(branches: Sequence[Branch], depth: int) -> Iterator[tuple[int, Branch]]:
    for branch in branches:
        yield depth, branch
        yield from _lines(branch.below, depth + 1)


def _command(process: ProcessReport) -> str:
    return " ".join(words_of(process.cmdline))


def _pattern(process: ProcessReport) -> str:
    """What it runs, but for numbers: pipes and the like, of which each worker has its own."""
    return _NUMBER.sub("*", _command(process))

"""What the page draws of the waits of one process: how long they were, and from where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from giltrace.analysis.measure import usage
from giltrace.analysis.measure.stack_totals import frames, waiting
from giltrace.analysis.results import ProcessReport, frame_text
from giltrace.timeline.model import Process

#: Bars per decade of the histogram, and the decades that it may have: 100 ns to 1000 s.
PER_DECADE = 5
FIRST_DECADE, LAST_DECADE = 2, 12
#: Flames narrower than this share of the whole are left out, and so are stacks beyond so many.
NARROWEST = 0.0005
MOST_STACKS = 20_000

Json = dict[str, Any]


def histogram(process: Process) -> list[Json]:
    """Return bars from `low` to `high` (ns), equally wide on a log scale: how many waits, and their `ns` in all."""
    length = usage.lengths(process.waits[process.of_chosen(process.waits)])
    if not len(length):
        return []
    exponents = np.arange(FIRST_DECADE * PER_DECADE, LAST_DECADE * PER_DECADE + 1) / PER_DECADE
    edges = np.rint(10.0**exponents).astype(np.int64)
    last = len(edges) - 2
    bar = np.clip(np.searchsorted(edges, length, "right") - 1, 0, last)
    count = np.bincount(bar, minlength=last + 1)
    total = np.bincount(bar, weights=length, minlength=last + 1)
    used = np.flatnonzero(count)
    return [
        {"low": int(edges[at]), "high": int(edges[at + 1]), "waits": int(count[at]), "ns": int(total[at])}
        for at in range(int(used[0]), int(used[-1]) + 1)
    ]


@dataclass
class _Flame:
    name: str
    ns: int = 0
    below: dict[str, _Flame] = field(default_factory=dict)

    def add(self, path: list[str], ns: int) -> None:
        self.ns += ns
        at = self
        for name in path:
            at = at.below.setdefault(name, _Flame(name))
            at.ns += ns

    def json(self, least: float) -> Json:
        kept = sorted((flame for flame in self.below.values() if flame.ns >= least), key=lambda flame: -flame.ns)
        inner = {"below": [flame.json(least) for flame in kept]} if kept else {}
        return {"name": self.name, "ns": self.ns, **inner}


def flame_graph(process: Process, report: ProcessReport) -> Json:
    """Return the waited time as a tree of `name`, `ns` and `below`: by thread role, then by stack, outermost first.

    Without stacks the second level is the role of the thread that held the GIL meanwhile.
    """
    root = _Flame("all waits")
    if process.stacks is not None:
        named = (thread.role for thread in report.threads)
        _add_stacks(root, process, dict(zip(process.chosen_threads, named, strict=True)))
    else:
        for blame in report.blame:
            root.add([blame.victim.thread, f"held by {blame.culprit.thread}"], blame.ns)
    return root.json(root.ns * NARROWEST)


def _add_stacks(root: _Flame, process: Process, roles: Mapping[int, str]) -> None:
    totals = waiting(process)
    largest = np.argsort(-totals.ns, kind="stable")[:MOST_STACKS]
    for thread, stack, ns in zip(*(column[largest].tolist() for column in totals), strict=True):
        root.add([roles[thread], *(place(*frame) for frame in frames(process, stack))], ns)


def place(function: str, file: str, line: int) -> str:
    """Return ``function (file:line)`` with the file's last part only."""
    return frame_text((function, file.rpartition("/")[2], line))

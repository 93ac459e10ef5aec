"""Dump when a GIL was held for more than a share of a window of time."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from giltrace.analysis.measure.intervals import disjoint
from giltrace.collectors.rules.base import Caught, Rule, duration_of
from giltrace.collectors.rules.outside import Outside
from giltrace.recording.live import Update
from giltrace.recording.trigger import Trigger
from giltrace.views.top.usage import Matcher

_VALUE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*%\s*/\s*(.+)")


@dataclass
class _Process:
    matcher: Matcher
    #: Of each GIL: when a stretch began and ended, and how long it was held in that.
    held: dict[int, deque[tuple[int, int, int]]] = field(default_factory=dict)


class Held(Rule):
    """``held>95%/5s``: over the last 5 s a GIL was held for more than 95 % of the time."""

    kind = "held"
    follows = True

    def __init__(self, text: str, value: str) -> None:
        found = _VALUE.fullmatch(value)
        if found is None or not float(found[1]) < 100:
            raise ValueError(f"{text!r} is no reason to dump: write held>95%/5s")
        super().__init__(text, found[2])
        self._share = float(found[1]) / 100
        self._window_ns = duration_of(found[2], text)
        self._processes: dict[int, _Process] = {}

    def see(self, update: Update, until: int, outside: Outside) -> list[Caught]:
        """See `Rule.see`."""
        file = update.file
        if update.ended:
            self._processes.pop(file.number, None)
            return []
        process = self._processes.setdefault(file.number, _Process(Matcher(file.start)))
        usage = process.matcher.take(update.events, until)
        found = []
        for gil in range(usage.gils):
            holds = usage.holds[usage.holds["gil"] == gil]
            start, end = disjoint(np.clip(holds["start"], usage.start, usage.end), holds["end"])
            held = process.held.setdefault(gil, deque())
            held.append((usage.start, usage.end, int((end - start).sum())))
            while len(held) > 1 and held[1][0] <= usage.end - self._window_ns:
                held.popleft()
            length = held[-1][1] - held[0][0]
            share = sum(one[2] for one in held) / max(length, 1)
            if length >= self._window_ns and share > self._share:
                held.clear()
                found.append(Caught(Trigger(self.kind, self.text, usage.end, length, file.pid), f"{share:.3f}"))
        return found

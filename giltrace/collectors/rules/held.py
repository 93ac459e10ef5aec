"""Dump when a GIL was held for more than a share of a window of time."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from giltrace.analysis.measure.intervals import disjoint
from giltrace.collectors.rules.base import Caught, Followed, Following
from giltrace.collectors.rules.outside import Outside
from giltrace.recording.live import Update
from giltrace.recording.trigger import Trigger
from giltrace.views.top.usage import Matcher

_VALUE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*%\s*/\s*(.+)")


@dataclass
class _Process(Followed):
    matcher: Matcher
    #: Of each GIL: when a stretch began and ended, and how long it was held in that.
    held: dict[int, deque[tuple[int, int, int]]] = field(default_factory=dict)


class Held(Following[_Process]):
    """``held>95%/5s``: over the last 5 s a GIL was held for more than 95 % of the time."""

    kind = "held"

    def __init__(self, text: str, value: str) -> None:
        found = _VALUE.fullmatch(value)
        if found is None or not float(found[1]) < 100:
            raise ValueError(f"{text!r} is no reason to dump: write held>95%/5s")
        super().__init__(text, found[2])
        self._share = float(found[1]) / 100

    def _meet(self, update: Update) -> _Process:
        return _Process(Matcher(update.file.start))

    def _follow(self, process: _Process, update: Update, until: int, outside: Outside) -> list[Caught]:
        if update.ended:
            return []
        usage = process.matcher.take(update.events, until)
        found = []
        for gil in range(usage.gils):
            holds = usage.holds[usage.holds["gil"] == gil]
            start, end = disjoint(np.clip(holds["start"], usage.start, usage.end), holds["end"])
            held = process.held.setdefault(gil, deque())
            held.append((usage.start, usage.end, int((end - start).sum())))
            while len(held) > 1 and held[1][0] <= usage.end - self.limit_ns:
                held.popleft()
            length = held[-1][1] - held[0][0]
            share = sum(one[2] for one in held) / max(length, 1)
            if length >= self.limit_ns and share > self._share:
                held.clear()
                found.append(Caught(Trigger(self.kind, self.text, usage.end, length, update.file.pid), f"{share:.3f}"))
        return found

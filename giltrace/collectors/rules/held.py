"""Dump when a GIL was held for more than a share of a window of time."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field

import numpy as np

from giltrace.collectors.rules.base import Caught, Followed, Following
from giltrace.collectors.rules.outside import Outside
from giltrace.recording.layout import Kind
from giltrace.recording.live import Update
from giltrace.recording.trigger import Trigger
from giltrace.timeline.axis import Bools, Ints

_VALUE = re.compile(r"\s*(\d+(?:\.\d*)?)\s*%\s*/\s*(.+)")


@dataclass
class _Gil:
    """One GIL: when stretches began and ended, and how long it was `held` in each; and whether it is `taken` now."""

    held: deque[tuple[int, int, int]] = field(default_factory=deque)
    taken: bool = False

    def had(self, time: Ints, takes: Bools, start: int, end: int) -> int:
        """How long it was held from `start` to `end`, in which it was taken and released at each `time`, in order.

        One that is taken twice was released in between, which is not on record.
        """
        bounds = np.concatenate([[start], np.clip(time, start, end), [end]])
        taken = np.concatenate([[self.taken], takes])
        self.taken = bool(taken[-1])
        return int(np.diff(bounds)[taken].sum())


@dataclass
class _Process(Followed):
    #: Up to when it was followed.
    until: int
    gils: dict[int, _Gil] = field(default_factory=dict)


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
        return _Process(update.file.start)

    def _follow(self, process: _Process, update: Update, until: int, outside: Outside) -> list[Caught]:
        if update.ended:
            return []
        start, process.until = process.until, max(process.until, until)
        end = process.until
        kind = update.events["kind"]
        turns = update.events.compress((kind == Kind.ACQUIRE) | (kind == Kind.RELEASE))
        gils = np.ascontiguousarray(turns["gil"])
        found = []
        for gil in sorted({*np.unique(gils).tolist(), *process.gils}):
            mine = gils == gil
            one = process.gils.setdefault(gil, _Gil())
            one.held.append((start, end, one.had(turns["time"][mine], turns["kind"][mine] == Kind.ACQUIRE, start, end)))
            while len(one.held) > 1 and one.held[1][0] <= end - self.limit_ns:
                one.held.popleft()
            length = end - one.held[0][0]
            share = sum(ns for _, _, ns in one.held) / max(length, 1)
            if length >= self.limit_ns and share > self._share:
                one.held.clear()
                found.append(Caught(Trigger(self.kind, self.text, end, length, update.file.pid), f"{share:.3f}"))
        return found

"""Dump on a wait for the GIL, or a hold of it, that was longer than a limit: the tracer itself watches these."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import IO, ClassVar

import numpy as np

from giltrace.collectors.gil import HOLD_LIMIT, WAIT_LIMIT
from giltrace.collectors.rules.base import Caught, Rule
from giltrace.recording import clock, gil, layout
from giltrace.recording.live import is_alive
from giltrace.recording.trigger import Trigger


def _head(file: IO[bytes]) -> np.void | None:
    # Not mapped: another user's file may be cut off at any time.
    data = os.pread(file.fileno(), layout.HEADER.itemsize, 0)
    return np.frombuffer(data, layout.HEADER)[0] if len(data) == layout.HEADER.itemsize else None


class _Limit(Rule):
    """The head of each process's file tells the newest wait or hold above the lowest limit, and counts them."""

    trigger: ClassVar[layout.Trigger]
    variable: ClassVar[str]

    def __init__(self, text: str, value: str) -> None:
        super().__init__(text, value)
        self._ticks_per_ns = 1.0
        self._heads: dict[Path, IO[bytes]] = {}
        self._ended: set[Path] = set()
        self._counts: dict[Path, int] = {}

    def prepare(self, env: dict[str, str]) -> None:
        """Tell the tracers the limit; of several the lowest."""
        self._ticks_per_ns = clock.ticks_per_ns()
        limit = max(1, round(self.limit_ns * self._ticks_per_ns))
        env[self.variable] = str(min(limit, int(env.get(self.variable) or limit)))

    def poll(self, folder: Path) -> list[Caught]:
        """See `Rule.poll`."""
        found = []
        for path in folder.glob("gil-*.bin"):
            if path not in self._heads and path not in self._ended:
                self._heads[path] = path.open("rb", buffering=0)
        for path, file in list(self._heads.items()):
            header = _head(file)
            if header is None:
                continue  # just being made
            over = layout.Status.STOPPED in layout.Status(int(header["status"])) or not is_alive(int(header["pid"]))
            if over:
                header = _head(file)  # all that it did is in there now
                self._heads.pop(path).close()
                self._ended.add(path)
            caught = None if header is None else self._caught(folder, path, header)
            if caught is not None:
                found.append(caught)
        return found

    def _caught(self, folder: Path, path: Path, header: np.void) -> Caught | None:
        """What a head tells that it did not the last time."""
        count = int(header["trigger_count"])
        new = count - self._counts.get(path, 0)
        self._counts[path] = count
        if not new or int(header["trigger_kind"]) != self.trigger:
            return None
        length = round(int(header["trigger_length"]) / self._ticks_per_ns)
        if length + 1 < self.limit_ns:
            return None
        self.missed += new - 1  # the head tells the newest only
        return Caught(self._read(folder, path, header, length))

    def _read(self, folder: Path, path: Path, header: np.void, length: int) -> Trigger:
        files = [file for file in gil.open_files(folder) if file.path == path]
        ticks = header["trigger_ticks"].reshape(1)
        at = int(gil.tick_clock(folder, files).to_ns(ticks)[0]) if files else time.monotonic_ns()
        return Trigger(self.kind, self.text, at, length, int(header["pid"]), int(header["trigger_tid"]))


class Wait(_Limit):
    """``wait>50ms``: a thread got the GIL after it had waited for longer."""

    kind = "wait"
    trigger = layout.Trigger.TRIGGER_WAIT
    variable = WAIT_LIMIT


class Hold(_Limit):
    """``hold>100ms``: a thread gave the GIL up after it had held it for longer."""

    kind = "hold"
    trigger = layout.Trigger.TRIGGER_HOLD
    variable = HOLD_LIMIT

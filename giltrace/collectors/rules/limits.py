"""Dump on a wait for the GIL, or a hold of it, that was longer than a limit: the tracer itself watches these."""

from __future__ import annotations

import mmap
import time
from pathlib import Path
from typing import ClassVar

import numpy as np

from giltrace.collectors.rules.base import Caught, Rule
from giltrace.recording import clock, gil, layout
from giltrace.recording.trigger import Trigger


class _Limit(Rule):
    """The head of each process's file tells the newest wait or hold above the lowest limit, and counts them."""

    trigger: ClassVar[layout.Trigger]

    def __init__(self, text: str, value: str) -> None:
        super().__init__(text, value)
        self._ticks_per_ns = 1.0
        self._heads: dict[Path, mmap.mmap] = {}
        self._counts: dict[Path, int] = {}

    def prepare(self, env: dict[str, str]) -> None:
        """Tell the tracers the limit; of several the lowest."""
        self._ticks_per_ns = clock.ticks_per_ns()
        name, limit = f"GILTRACE_{self.kind.upper()}_LIMIT", max(1, round(self.limit_ns * self._ticks_per_ns))
        env[name] = str(min(limit, int(env.get(name) or limit)))

    def poll(self, folder: Path) -> list[Caught]:
        """See `Rule.poll`."""
        found = []
        for path in folder.glob("gil-*.bin"):
            if path not in self._heads:
                if path.stat().st_size < layout.HEADER_SIZE:
                    continue  # just being made
                with path.open("rb") as file:
                    self._heads[path] = mmap.mmap(file.fileno(), layout.HEADER_SIZE, access=mmap.ACCESS_READ)
            header = np.frombuffer(self._heads[path], layout.HEADER, 1)[0]
            count = int(header["trigger_count"])
            new = count - self._counts.get(path, 0)
            self._counts[path] = count
            if not new or int(header["trigger_kind"]) != self.trigger:
                continue
            length = round(int(header["trigger_length"]) / self._ticks_per_ns)
            if length + 1 >= self.limit_ns:
                found.append(Caught(self._read(folder, path, header, length)))
                self.missed += new - 1  # the head tells the newest only
        return found

    def _read(self, folder: Path, path: Path, header: np.void, length: int) -> Trigger:
        files = [file for file in gil.open_files(folder) if file.path == path]
        ticks = header["trigger_ticks"].reshape(1)
        at = int(gil.tick_clock(folder, files).to_ns(ticks)[0]) if files else time.monotonic_ns()
        return Trigger(self.kind, self.text, at, length, int(header["pid"]), int(header["trigger_tid"]))


class Wait(_Limit):
    """``wait>50ms``: a thread got the GIL after it had waited for longer."""

    kind = "wait"
    trigger = layout.Trigger.TRIGGER_WAIT


class Hold(_Limit):
    """``hold>100ms``: a thread gave the GIL up after it had held it for longer."""

    kind = "hold"
    trigger = layout.Trigger.TRIGGER_HOLD

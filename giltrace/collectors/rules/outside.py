"""Looks from outside at threads of the recorded processes, at the moment that something takes too long."""

from __future__ import annotations

import time
from pathlib import Path

from giltrace.analysis.findings.stall import Look
from giltrace.errors import TargetError
from giltrace.process.standing import Onlooker, Standing
from giltrace.recording.lines import LineTable
from giltrace.recording.live_file import LiveFile


class Outside:
    """Looks at threads by process and id; who cannot be looked at is not tried again."""

    def __init__(self) -> None:
        self._onlookers: dict[int, Onlooker | None] = {}
        self._lines: dict[tuple[tuple[int, int], int, bytes], LineTable] = {}
        self._loaded: dict[tuple[int, str], bool] = {}

    def look(self, file: LiveFile, tid: int) -> list[Look]:
        """How that thread of the process stands, first, and who has the GIL, if that is another one.

        Empty if it cannot be told: in a pid namespace of its own, its id may be somebody else's here.
        """
        written = f"{file.path.parent.name}/{file.path.name}"
        onlooker = self._onlooker(file.pid) if self.has_loaded(file.pid, written) else None
        if onlooker is None:
            return []
        found = []
        for each in (tid, *(other for other in onlooker.holders() if other not in (0, tid))):
            standing = onlooker.look(each)
            if standing is not None:
                found.append(self._told(each, standing, onlooker.version))
        return found if found and found[0].tid == tid else []

    def task(self, tid: int, start: int, end: int) -> str:
        """The name of the asyncio task that a thread ran at a time (ns) between, if somebody else knows it."""
        return ""

    def has_loaded(self, pid: int, part: str) -> bool:
        """Whether a process has mapped a file with this in its path."""
        known = self._loaded.get((pid, part))
        if known is None:
            try:
                known = part in Path(f"/proc/{pid}/maps").read_text(errors="replace")
            except OSError:
                known = False
            self._loaded[pid, part] = known
        return known

    def forget(self, pid: int) -> None:
        """Let go of a process that has ended."""
        onlooker = self._onlookers.pop(pid, None)
        if onlooker is not None:
            onlooker.close()
        self._loaded = {key: known for key, known in self._loaded.items() if key[0] != pid}

    def close(self) -> None:
        """Let go of all."""
        for pid in list(self._onlookers):
            self.forget(pid)

    def _onlooker(self, pid: int) -> Onlooker | None:
        if pid not in self._onlookers:
            try:
                self._onlookers[pid] = Onlooker(pid)
            except (TargetError, OSError):
                self._onlookers[pid] = None
        return self._onlookers[pid]

    def _told(self, tid: int, standing: Standing, version: tuple[int, int]) -> Look:
        frames = []
        for code, offset in standing.frames:
            key = (version, code.first_line, code.table)
            if key not in self._lines:
                if len(self._lines) > 4096:
                    self._lines.clear()
                self._lines[key] = LineTable(version, code.first_line, code.table)
            frames.append((code.function, code.file, self._lines[key].line(offset)))
        collecting = standing.collecting and standing.holds
        return Look(time.monotonic_ns(), tid, tuple(frames), collecting, standing.holds, standing.task)

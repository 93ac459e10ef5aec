"""How much room a recording may take on disk, and what has to be left there for others."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

#: So much (bytes) stays free, or half of what there was if that was less; where there was nearly nothing, nothing does.
LEAST_FREE, _NEARLY_NOTHING = 256 << 20, 2 << 20
_LOOK_SECONDS = 0.5


class Room:
    """Watches the recording in `folder`, which may take `most` bytes on disk (0: any), and ends it where it is full.

    The tracers are told to leave their processes, which go on; `told` is given why, once.
    """

    def __init__(self, folder: Path, most: int, told: Callable[[str], None]) -> None:
        self._folder = folder
        self._most = most
        self._told = told
        self._next = 0.0
        self._free = 0

    def start(self) -> None:
        """Begin, once the folder is there."""
        with contextlib.suppress(OSError):
            free = _free(self._folder)
            self._free = min(LEAST_FREE, free // 2) if free > _NEARLY_NOTHING else 0

    def full(self) -> str:
        """Say why the recording has to end; empty as long as there is room. Looks twice a second."""
        now = time.monotonic()
        if now < self._next:
            return ""
        self._next = now + _LOOK_SECONDS
        with contextlib.suppress(OSError):
            if self._most and _taken(self._folder) >= self._most:
                return self._say("it has reached --max-size")
            if _free(self._folder) < self._free:
                return self._say(f"less than {self._free >> 20} MiB are free where it is")
        return ""

    def _say(self, why: str) -> str:
        self._told(f"the recording ends here, the program goes on: {why}")
        return why

    def send_away(self) -> None:
        """Tell all tracers that are at work to leave, those of processes that have begun since too."""
        from giltrace.launch.attach.heads import Heads
        from giltrace.process.folder import Folder
        from giltrace.recording.layout import Control

        with contextlib.suppress(OSError), Folder.own(self._folder) as folder:
            for head in Heads(folder).look():
                if head.at_work:
                    head.say(Control.CONTROL_STOP)


def _taken(folder: Path) -> int:
    """How many bytes the files of a folder have on disk."""
    return sum(entry.stat(follow_symlinks=False).st_blocks * 512 for entry in os.scandir(folder))


def _free(folder: Path) -> int:
    about = os.statvfs(folder)
    return about.f_bavail * about.f_frsize

"""Dump when giltrace gets a signal, which then is not passed on to the program."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType

from giltrace.collectors.rules.base import Caught, Rule
from giltrace.recording.trigger import Trigger


class Signal(Rule):
    """``USR1``, ``USR2``, ``HUP`` or ``QUIT``."""

    kind = "signal"
    has_value = False
    asked = True

    def __init__(self, text: str, value: str) -> None:
        super().__init__(text, value)
        self._number = signal.Signals[f"SIG{text.upper().removeprefix('SIG')}"]
        self._got: list[int] = []

    def prepare(self, env: dict[str, str]) -> None:
        """Take the signal over."""
        signal.signal(self._number, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._got.append(time.monotonic_ns())

    def poll(self, folder: Path) -> list[Caught]:
        """See `Rule.poll`."""
        got, self._got = self._got, []
        return [Caught(Trigger("signal", self.text, at)) for at in got]

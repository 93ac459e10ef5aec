"""The terminal while a full-screen view has it: keys and signals as they come, and everything put back at the end."""

from __future__ import annotations

import contextlib
import io
import os
import re
import select
import signal
import sys
import termios
import time
import tty
from types import FrameType
from typing import Any

from rich.console import Console
from rich.text import Text

from giltrace.errors import UsageError
from giltrace.views.ending import Ending

# What terminals send for keys that have no character; both of the modes that arrows may be in.
_KEYS = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"\x1b[5~": "page-up",
    b"\x1b[6~": "page-down",
    b"\x1b": "escape",
    b"\r": "enter",
    b"\n": "enter",
    b" ": "space",
    b"\x7f": "backspace",
    b"\x08": "backspace",
}
# A sequence, or a single byte.
_KEY = re.compile(rb"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Z])|.", re.S)
_WITHOUT = ("giltrace top needs a terminal", "use --once for one snapshot as text, --json for programs")
_ALTERNATE, _NORMAL = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


class Terminal:
    """A context: inside it the terminal gives keys and shows one page, outside it is as it was.

    A signal that `ending` notes wakes whoever waits for a key. Raises `UsageError`, of what it is told, without one.
    """

    def __init__(self, console: Console, ending: Ending, without: tuple[str, str] = _WITHOUT) -> None:
        if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
            raise UsageError(*without)
        self.console = console
        self.ending = ending
        self._input = sys.stdin.fileno()
        self._saved: list[Any] = []
        self._typed: list[str] = []
        self._to_pause = False
        self._wake = (-1, -1)

    def __enter__(self) -> Terminal:
        # What the traced program calls its threads need not exist in this terminal's encoding.
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="replace")
        self._wake = os.pipe()
        for end in self._wake:
            os.set_blocking(end, False)
        self._before = {number: signal.getsignal(number) for number in (signal.SIGTSTP, signal.SIGWINCH)}
        self._take()
        signal.set_wakeup_fd(self._wake[1], warn_on_full_buffer=False)
        signal.signal(signal.SIGTSTP, self._ask_pause)
        signal.signal(signal.SIGWINCH, lambda number, frame: None)
        return self

    def __exit__(self, *error: object) -> None:
        self._give_back()
        signal.set_wakeup_fd(-1)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        for end in self._wake:
            os.close(end)

    def _take(self) -> None:
        self._saved = termios.tcgetattr(self._input)
        tty.setcbreak(self._input, termios.TCSANOW)
        self._write(_ALTERNATE)

    def _give_back(self) -> None:
        # The terminal may be gone: that is one of the ways to get here.
        with contextlib.suppress(OSError, termios.error):
            self._write(_NORMAL)
            termios.tcsetattr(self._input, termios.TCSANOW, self._saved)

    def _write(self, text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def _ask_pause(self, number: int, frame: FrameType | None) -> None:
        self._to_pause = True

    def _pause(self) -> None:
        self._to_pause = False
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()

    def show(self, lines: list[Text]) -> None:
        """Show a page of lines, none of them longer than the terminal is wide."""
        with self.console.capture() as page:
            self.console.print(Text("\n").join(lines), soft_wrap=True, highlight=False, end="")
        # No newline at the end: the page must not scroll.
        self._write("\x1b[H" + page.get().replace("\n", "\x1b[K\r\n") + "\x1b[K\x1b[J")

    def key(self, until: float) -> str | None:
        """The next key, or None at the time `until` (as `time.monotonic`) or once something else wants attention."""
        if self._typed:
            return self._typed.pop(0)
        left = max(until - time.monotonic(), 0)
        ready, _, _ = select.select([self._input, self._wake[0]], [], [], left)
        if self._wake[0] in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake[0], 4096)
        if self._to_pause:
            self._pause()
            return None
        if self._input not in ready or self.ending.signal is not None:
            return None
        typed = os.read(self._input, 1024)
        if not typed:
            self.ending.signal = signal.SIGHUP
            return None
        self._typed += [_KEYS.get(one) or one.decode("ascii", "replace") for one in _KEY.findall(typed)]
        return self._typed.pop(0)

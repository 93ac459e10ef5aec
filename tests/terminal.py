"""A real terminal (tmux) with one program in it: what it shows, keys for it, and what it leaves behind."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

SECONDS = 40.0


class Terminal:
    """Runs `command` in `folder` in a window of its own; `changes` are made to the environment.

    Use as a context manager. Before and after, the terminal's settings are written to "before" and "after" in `folder`,
    and then the exit status to "status".
    """

    def __init__(self, command: list[str], folder: Path, columns: int, rows: int, **changes: str) -> None:
        self._folder = folder
        self._socket = str(folder / "tmux")
        # Ctrl-C is the program's: the shell, in whose group it is, goes on.
        script = f"trap : INT; stty -a >before; {shlex.join(command)} 2>errors; s=$?; "
        script += "stty -a >after; echo $s >status; exec cat"
        self._environment = {**os.environ, "LC_ALL": "C.UTF-8", **changes}
        size = ("-x", str(columns), "-y", str(rows))
        self._run("-f", "/dev/null", "new-session", "-d", "-s", "test", *size, "-c", str(folder), script)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: object) -> None:
        self._run("kill-server")

    def _run(self, *words: str) -> str:
        command = ["tmux", "-S", self._socket, *words]
        ran = subprocess.run(command, env=self._environment, capture_output=True, text=True, timeout=30, check=True)
        return ran.stdout

    def press(self, *keys: str) -> None:
        """Type keys by tmux's names: "q", "Down", "Enter", "C-c"."""
        self._run("send-keys", "-t", "test", *keys)

    def resize(self, columns: int, rows: int) -> None:
        self._run("resize-window", "-t", "test", "-x", str(columns), "-y", str(rows))

    def lines(self, *, styles: bool = False) -> list[str]:
        """What is on the screen, with its escape sequences if `styles`."""
        return self._run("capture-pane", "-p", "-t", "test", *(["-e"] if styles else [])).split("\n")[:-1]

    def wait_for(self, pattern: str) -> str:
        """Wait until the screen matches; returns it."""
        return self._wait(lambda: self.lines(), lambda text: re.search(pattern, text) is not None, pattern)

    def wait_without(self, pattern: str) -> str:
        """Wait until the screen matches no more; returns it."""
        return self._wait(lambda: self.lines(), lambda text: re.search(pattern, text) is None, f"no {pattern}")

    def _wait(self, look: Callable[[], list[str]], good: Callable[[str], bool], what: str) -> str:
        deadline = time.monotonic() + SECONDS
        while not good(text := "\n".join(look())):
            assert time.monotonic() < deadline, f"waited for {what}; on the screen:\n{text}\n{self.errors()}"
            time.sleep(0.05)
        return text

    def wait_until(self, holds: Callable[[], bool], what: str) -> None:
        """Wait until it `holds`; `what` names that."""
        self._wait(self.lines, lambda _: holds(), what)

    def status(self) -> int:
        """Wait for the program's end; its exit status."""
        path = self._folder / "status"
        self._wait(lambda: [path.read_text() if path.exists() else ""], lambda text: text.endswith("\n"), "the end")
        return int(path.read_text())

    def ended(self) -> bool:
        """Whether the program has."""
        return (self._folder / "status").exists()

    def errors(self) -> str:
        path = self._folder / "errors"
        return path.read_text() if path.exists() else ""

    def is_as_before(self) -> bool:
        """Whether the settings are those from before, on the normal screen, with a cursor."""
        flags = self._run("display-message", "-p", "-t", "test", "#{alternate_on} #{cursor_flag}").split()
        # `stty` breaks its lines where it takes the terminal to end.
        before, after = ((self._folder / name).read_text().split() for name in ("before", "after"))
        return before == after and flags == ["0", "1"]

    def program(self) -> int:
        """The pid of the program that runs in the shell."""
        shell = self._run("display-message", "-p", "-t", "test", "#{pane_pid}").strip()
        return int(Path(f"/proc/{shell}/task/{shell}/children").read_text().split()[0])

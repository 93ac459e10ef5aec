"""What a flight recorder does once a rule is met: dumps are written, told and passed on beside it, one by one."""

from __future__ import annotations

import queue
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from giltrace.errors import OutputError, RecordingError
from giltrace.recording.trigger import Trigger

#: So long (seconds) commands may go on after the program has ended; then they are left to themselves.
_PATIENCE = 10.0

Write = Callable[[], tuple[Trigger, Path]]


class Afterwards:
    """Writes dumps in a thread of its own, and runs the `command` on each, with its path for each ``{}``.

    `announce` is told of each dump, unless `written` is called instead, and of what fails, which `problem` keeps.
    """

    def __init__(
        self,
        announce: Callable[[str], None],
        command: Sequence[str],
        written: Callable[[Trigger, Path], None] | None = None,
    ) -> None:
        self.problem = ""
        self._written = written or self._tell
        self._announce = announce
        self._command = tuple(command)
        self._due: queue.SimpleQueue[Write | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._commands: list[threading.Thread] = []

    def write(self, write: Write) -> None:
        """Have a dump written when those before it are."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="giltrace-dumps", daemon=True)
            self._thread.start()
        self._due.put(write)

    def finish(self) -> None:
        """Wait for what is due, and a little for the commands."""
        if self._thread is not None:
            self._due.put(None)
            self._thread.join()
            self._thread = None
        end = time.monotonic() + _PATIENCE
        for thread in self._commands:
            thread.join(max(0.0, end - time.monotonic()))
        if any(thread.is_alive() for thread in self._commands):
            self._announce(f"{self._command[0]} (--on-dump) still runs: it is left to itself")

    def _work(self) -> None:
        while (write := self._due.get()) is not None:
            try:
                trigger, out = write()
            except (OutputError, RecordingError) as error:
                self._fail(f"a dump failed: {error.message}")
                continue
            self._written(trigger, out)
            if self._command:
                thread = threading.Thread(target=self._run, args=(out,), name="giltrace-on-dump", daemon=True)
                self._commands = [one for one in self._commands if one.is_alive()]
                self._commands.append(thread)
                thread.start()

    def _tell(self, trigger: Trigger, out: Path) -> None:
        if trigger.cause:
            self._announce(trigger.sentence)
        self._announce(f"{trigger}: {out}")

    def _run(self, out: Path) -> None:
        """Run the command on a dump; what it writes to stdout goes to stderr: stdout is the program's."""
        words = [word.replace("{}", str(out)) for word in self._command]
        try:
            status = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=2, check=False).returncode
        except (OSError, ValueError) as error:
            self._fail(f"--on-dump: cannot run {words[0]}: {getattr(error, 'strerror', None) or error}")
            return
        if status:
            how = f"ended by signal {-status}" if status < 0 else f"failed with status {status}"
            self._fail(f"--on-dump: {words[0]} {how} on {out}")

    def _fail(self, what: str) -> None:
        self.problem = what
        self._announce(what)

"""One py-spy process that samples one Python process."""

from __future__ import annotations

import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

from giltrace.collectors import _perf
from giltrace.process.capabilities import granted

if TYPE_CHECKING:
    from giltrace.collectors._pyspy_trace import ChromeTrace

#: Pages of the ring for the switches of py-spy's main thread: 1,000 of them, drained 20 times a second.
_RING_PAGES = 8

# py-spy takes the start of its clock early: the shell waits until its switches are being recorded.
_GATE = 'read -r _; exec "$@" </dev/null'

_COUNTS = re.compile(r"Samples: (\d+) Errors: (\d+)")


class PySpyProcess:
    """Runs `command` on `pid` until it ends or `interrupt`, with its switches recorded where that is allowed.

    The files `<stem>.json`, `.log` and `.perf` are removed by `remove_files`. Raises OSError if it cannot start.
    """

    def __init__(self, command: list[str], pid: int, stem: Path) -> None:
        self.target = pid
        self.status: int | None = None
        self.cpu_seconds = 0.0
        self.begin = self.end = 0
        self._raw, self._log, self._perf = (stem.with_name(stem.name + s) for s in (".json", ".log", ".perf"))
        self._ring: _perf.Ring | None = None
        gate_read, gate_write = os.pipe()
        try:
            self.pid = self._spawn([*command, "-o", str(self._raw), "-p", str(pid)], gate_read)
            try:
                self._ring = _perf.Ring(_perf.open_switches(self.pid, -1, inherit=False), self._perf, _RING_PAGES)
            except OSError:
                self._ring = None  # the clock is then known less well
            self.begin = time.monotonic_ns()
            os.write(gate_write, b"\n")
        finally:
            os.close(gate_read)
            os.close(gate_write)

    def _spawn(self, command: list[str], stdin: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        return os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", _GATE, "sh", *command],
            {key: value for key, value in os.environ.items() if key not in ("RUST_LOG", "LD_PRELOAD")},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._log), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            # Ctrl-C at the terminal is for the target, and the recorder blocks signals that this process must get.
            setpgroup=0,
            setsigmask=[],
            setsigdef=[signal.SIGINT, signal.SIGPIPE],
        )

    @property
    def running(self) -> bool:
        """Drain its switches and see whether it still runs."""
        if self.status is not None:
            return False
        if self._ring is not None:
            self._ring.drain()
        done, status, usage = os.wait4(self.pid, os.WNOHANG)
        if not done:
            return True
        self.status = os.waitstatus_to_exitcode(status)
        self.cpu_seconds = usage.ru_utime + usage.ru_stime
        self.end = time.monotonic_ns()
        if self._ring is not None:
            self._ring.close()
        return False

    def interrupt(self) -> None:
        """Ask it to write its file and end."""
        if self.status is None:
            os.kill(self.pid, signal.SIGINT)

    def kill(self) -> None:
        """End it at once."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)

    def trace(self) -> ChromeTrace | None:
        """Return what it recorded, None if nothing. Raises ValueError for a file that makes no sense."""
        from giltrace.collectors._pyspy_trace import ChromeTrace

        return ChromeTrace(self._raw) if self._raw.exists() and self._raw.stat().st_size else None

    def clock_start(self, trace: ChromeTrace) -> tuple[int, int]:
        """Return the CLOCK_MONOTONIC ns of its time zero, and the bound on the error."""
        from giltrace.collectors._pyspy_trace import find_start
        from giltrace.recording.sched import read_perf_files

        switches = read_perf_files([self._perf]) if self._perf.exists() else None
        # Its file was written, which is the last of its ticks, before it was seen to have ended.
        last = self.end - max(trace.ticks, default=0) * 1000
        return find_start(trace.samples, switches, self.begin, last)

    def counts(self) -> tuple[int, int]:
        """Return how many samples it took, and how many failed."""
        match = _COUNTS.search(self._output())
        return (int(match[1]), int(match[2])) if match else (0, 0)

    def problem(self) -> str:
        """Say why it has recorded nothing, remedy included."""
        text = self._output()
        if "ermission denied" in text.lower() or "Operation not permitted" in text:
            remedy = f"sudo sysctl kernel.yama.ptrace_scope=0, or {granted('SYS_PTRACE')}"
            return f"py-spy may not read the target: {remedy}"
        errors = [line.removeprefix("Error: ") for line in text.splitlines() if line.startswith("Error: ")]
        if not Path(f"/proc/{self.target}").exists() or self.status in (0, -signal.SIGINT):
            return f"process {self.target} ended before py-spy had a sample of it"
        return f"py-spy: {errors[-1]}" if errors else f"py-spy ended with status {self.status}"

    def remove_files(self) -> None:
        """Remove what it wrote."""
        for path in (self._raw, self._log, self._perf):
            path.unlink(missing_ok=True)

    def _output(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

"""The names that Python gave the threads of a running process, as py-spy reads them without stopping it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

#: How long to wait before new threads are worth another look, and for the last one.
_AGAIN_SECONDS = 2.0
_LAST_SECONDS = 5.0


class NamedThread(NamedTuple):
    """A thread that Python has a name for.

    `own` is its id in the process's own pid namespace, None up to 3.10; `pthread` is its pthread id. `frames` is its
    stack, innermost first: function, file and line of each frame.
    """

    name: str
    own: int | None
    pthread: int
    frames: tuple[tuple[str, str, int], ...] = ()


class NameDump:
    """A py-spy (`program`) that reads the threads of process `pid`. Raises OSError if it cannot be started."""

    def __init__(self, program: str, pid: int) -> None:
        # A file, for whole stacks come with the names, and a pipe that nobody reads would fill up.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - it is read once the program has ended
        try:
            self._process = subprocess.Popen(
                [program, "dump", "--nonblocking", "--json", "--pid", str(pid)],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.DEVNULL,
            )
        except OSError:
            self._output.close()
            raise

    @property
    def ready(self) -> bool:
        """Tell whether it has finished."""
        return self._process.poll() is not None

    def threads(self, seconds: float) -> list[NamedThread]:
        """Return what it has read, for which it is given so long; empty if it cannot read this process."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._output:
            self._output.seek(0)
            output = self._output.read()
        try:
            return [
                NamedThread(
                    str(thread["thread_name"]),
                    thread["os_thread_id"],
                    int(thread["thread_id"]),
                    _frames(thread.get("frames")),
                )
                for thread in json.loads(output)
                if thread["thread_name"]
            ]
        except (ValueError, KeyError, TypeError):
            return []


def _frames(told: object) -> tuple[tuple[str, str, int], ...]:
    """What py-spy says of a stack; empty where that makes no sense: the name is worth more."""
    if not isinstance(told, list):
        return ()
    try:
        return tuple((str(frame["name"]), str(frame["filename"]), max(int(frame["line"]), 0)) for frame in told)
    except (ValueError, KeyError, TypeError):
        return ()


class ThreadNames:
    """Names of the threads of `pid`, by the kernel's ids; `program` is py-spy, None where there is none.

    `resolve` makes the kernel's id here of what py-spy says: the id in the process's own pid namespace (None up to
    3.10), and the pthread id. It returns None if it cannot.
    A py-spy started by `look` runs beside; what it says is in `known` after a later `look` or `finish`.
    """

    def __init__(self, pid: int, program: str | None, resolve: Callable[[int | None, int], int | None]) -> None:
        self.known = {pid: "MainThread"}
        self._pid = pid
        self._program = program
        self._resolve = resolve
        self._running: NameDump | None = None
        self._asked: set[int] = set()
        self._last = float("-inf")

    def look(self, tids: set[int]) -> None:
        """Take in what is there, and ask again if some of `tids` were never asked for."""
        if self._running is not None and self._running.ready:
            self._take(self._running)
        fresh = tids - self._asked - self.known.keys()
        if self._running is None and fresh and time.monotonic() - self._last > _AGAIN_SECONDS:
            self._ask(tids)

    def finish(self, tids: set[int]) -> None:
        """Ask a last time where there is need to, and wait for the answer, but not for long."""
        if self._running is None and tids - self._asked - self.known.keys():
            self._ask(tids)
        if self._running is not None:
            self._take(self._running)

    def _ask(self, tids: set[int]) -> None:
        self._asked |= tids
        self._last = time.monotonic()
        self._read_kernel(tids)
        if self._program is not None:
            with contextlib.suppress(OSError):  # the kernel's names have to do
                self._running = NameDump(self._program, self._pid)

    def _take(self, dump: NameDump) -> None:
        self._running = None
        for thread in dump.threads(_LAST_SECONDS):
            tid = self._resolve(thread.own, thread.pthread)
            if tid is not None:
                self.known[tid] = thread.name

    def _read_kernel(self, tids: set[int]) -> None:
        """From 3.14 on, the kernel knows the beginning of a thread's name; before, all are called like the program."""
        program = _comm(self._pid, self._pid)
        for tid in tids - self.known.keys():
            name = _comm(self._pid, tid)
            if name and name != program:
                self.known[tid] = name


def _comm(pid: int, tid: int) -> str:
    try:
        return os.fsdecode(Path(f"/proc/{pid}/task/{tid}/comm").read_bytes()).strip()
    except OSError:
        return ""

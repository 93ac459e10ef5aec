"""The names that Python gave the threads of a running process, as py-spy reads them without stopping it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

#: How long to wait before new threads are worth another look, and for the last one.
_AGAIN_SECONDS = 2.0
_LAST_SECONDS = 5.0


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
        self._running: subprocess.Popen[bytes] | None = None
        self._asked: set[int] = set()
        self._last = float("-inf")

    def look(self, tids: set[int]) -> None:
        """Take in what is there, and ask again if some of `tids` were never asked for."""
        if self._running is not None and self._running.poll() is not None:
            self._take()
        fresh = tids - self._asked - self.known.keys()
        if self._running is None and fresh and time.monotonic() - self._last > _AGAIN_SECONDS:
            self._ask(tids)

    def finish(self, tids: set[int]) -> None:
        """Ask a last time where there is need to, and wait for the answer, but not for long."""
        if self._running is None and tids - self._asked - self.known.keys():
            self._ask(tids)
        if self._running is not None:
            try:
                self._running.wait(_LAST_SECONDS)
            except subprocess.TimeoutExpired:
                self._running.kill()
            self._take()

    def _ask(self, tids: set[int]) -> None:
        self._asked |= tids
        self._last = time.monotonic()
        self._read_kernel(tids)
        if self._program is not None:
            command = [self._program, "dump", "--nonblocking", "--json", "-p", str(self._pid)]
            self._running = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )

    def _take(self) -> None:
        assert self._running is not None
        output, _ = self._running.communicate()
        self._running = None
        try:
            threads = json.loads(output)
        except ValueError:
            return  # it cannot read this one: the kernel's names have to do
        for thread in threads:
            tid = self._resolve(thread["os_thread_id"], int(thread["thread_id"]))
            if thread["thread_name"] and tid is not None:
                self.known[tid] = str(thread["thread_name"])

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

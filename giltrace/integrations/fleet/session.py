"""What runs in a cluster's worker while it is recorded: the tracer, which task runs on which thread, and the way home.

Whoever records calls the functions here in workers, in the cluster's way. Whatever goes wrong is told and never hinders
the worker.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

import giltrace
from giltrace.errors import GiltraceError
from giltrace.launch.inprocess import trace_here
from giltrace.recording.clock_file import append_pair

#: A session's folder has the recording, the log of tasks, and what is known of the worker.
RECORDING, TASKS, ABOUT = "part.giltrace", "tasks.jsonl", "about.json"
#: One reading of a file, before it is packed.
PIECE = 1 << 20
#: What threads note of their tasks goes to the file so often, and both clocks are read.
_BEAT_SECONDS = 0.5
_PAIR_NS = 1_000_000_000
#: A client that has not asked for so long is gone: recording ends, and what nobody fetches is deleted later.
_LEASE_NS = 60_000_000_000
_KEPT_SECONDS = 600

#: Why a recording has ended: the client wanted it so, or it never began.
ASKED, REFUSED = "asked", "refused"

CallLater = Callable[[float, Callable[[], None]], Any]

#: By token, of this process.
_sessions: dict[str, Session] = {}


class Session:
    """The recording of one process, in which there may be several workers; `call_later` is its event loop's."""

    def __init__(self, base: Path, token: str, stacks: int, most_bytes: int, call_later: CallLater) -> None:
        self.place = Path(tempfile.mkdtemp(prefix=f"{base.name}-{token}-", dir=base.parent))
        self.about: dict[str, Any] = {**probe(), "workers": {}, "place": str(self.place)}
        self.problem: tuple[str, str] | None = None
        self.ended = ""
        self.tasks = 0
        self._token, self._most_bytes, self._call_later = token, most_bytes, call_later
        self._notes: deque[tuple[str, int, int, str]] = deque()
        self.renewed_ns = self._paired_ns = time.monotonic_ns()
        self._late = False
        self._log = (self.place / TASKS).open("a", encoding="utf-8")
        self._trace = trace_here(self.place / RECORDING, stacks=stacks, force=False)
        try:
            self._trace.__enter__()
        except Exception as error:
            self._log.close()
            told = (error.message, error.remedy) if isinstance(error, GiltraceError) else (str(error), "")
            self.problem, self.ended = told, REFUSED
        call_later(_BEAT_SECONDS, self._beat)
        _sessions[token] = self

    def called(self, address: str, name: str) -> None:
        """What a worker of this process is called, and where it is."""
        self.about["workers"][address] = name
        (self.place / ABOUT).write_text(json.dumps(self.about))

    def begins(self, key: Any) -> None:
        """A thread begins a task: called there, with the GIL, and without giving it up."""
        self.note("begin", threading.get_native_id(), key)

    def ends(self) -> None:
        """A thread has ended the task that it had begun."""
        self.tasks += 1
        self.note("end", threading.get_native_id(), "")

    def note(self, what: str, tid: int, key: Any) -> None:
        """Note a begin or an end of a task, in the words that `read_tasks` reads, with the time."""
        if not self.ended:
            self._notes.append((what, time.monotonic_ns(), tid, str(key)))

    def end(self, why: str = ASKED) -> None:
        """End the recording, unless it has ended."""
        if self.ended:
            return
        self.let_go()
        self._flush()
        self.ended = why
        self._trace.__exit__(None, None, None)
        self._log.close()
        self._call_later(_KEPT_SECONDS, self.discard)

    def let_go(self) -> None:
        """Leave what tells of tasks as it was."""

    def _beat(self) -> None:
        if self.ended:
            return
        now = time.monotonic_ns()
        try:
            self._flush()
            if now - self._paired_ns > _PAIR_NS:
                self._paired_ns = now
                append_pair(self.place / RECORDING)
            too_much = size_of(self.place) > self._most_bytes
        except OSError as error:
            self.end(f"it could not be written: {error.strerror}")
            return
        # Once late, twice gone: this thread may have been kept from hearing the client.
        gone, self._late = self._late and now - self.renewed_ns > _LEASE_NS, now - self.renewed_ns > _LEASE_NS
        if too_much or gone:
            self.end(f"it had {self._most_bytes >> 20} MiB" if too_much else "the client was gone")
        else:
            self._call_later(_BEAT_SECONDS, self._beat)

    def _flush(self) -> None:
        while self._notes:
            self._log.write(json.dumps(self._notes.popleft()) + "\n")
        self._log.flush()

    def discard(self) -> None:
        """Delete what was recorded."""
        self.end()
        _sessions.pop(self._token, None)
        shutil.rmtree(self.place, ignore_errors=True)


def session_of(token: str) -> Session | None:
    """The recording of this process that has the token."""
    return _sessions.get(token)


def sessions() -> list[Session]:
    """All of this process."""
    return list(_sessions.values())


def probe() -> dict[str, Any]:
    """What this process is: its giltrace, host, clock and pid."""
    clock = ""
    with contextlib.suppress(OSError):
        clock = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        clock += " " + os.readlink("/proc/self/ns/time")
    # Without either it is a clock of its own.
    clock = clock or f"{socket.gethostname()} {os.getpid()}"
    return {"giltrace": giltrace.__version__, "host": socket.gethostname(), "clock": clock, "pid": os.getpid()}


def now() -> int:
    """This machine's CLOCK_MONOTONIC, in ns."""
    return time.monotonic_ns()


def status(token: str) -> dict[str, Any] | None:
    """How the recording of this process is getting on, None if there is none; the client is there, as this shows."""
    session = _sessions.get(token)
    if session is None:
        return None
    session.renewed_ns = time.monotonic_ns()
    told = {"problem": session.problem, "ended": session.ended, "tasks": session.tasks}
    return {**session.about, **told, "bytes": size_of(session.place)}


def stop(token: str) -> dict[str, Any] | None:
    """End the recording of this process, and tell its `status`."""
    if token in _sessions:
        _sessions[token].end()
    return status(token)


@dataclass(frozen=True)
class Ground:
    """Where sessions have their folders on a machine: what `base` gives there, a path, with more behind its name."""

    base: Callable[[], Path]

    def left_behind(self, token: str) -> list[dict[str, Any]]:
        """What this machine has of workers that are gone: what was known of each."""
        own = {str(session.place) for session in _sessions.values()}
        found = []
        base = self.base()
        for place in base.parent.glob(f"{base.name}-{token}-*"):
            with contextlib.suppress(OSError, ValueError):
                if str(place) not in own:
                    found.append({**json.loads((place / ABOUT).read_text()), "place": str(place)})
        return found

    def files(self, token: str, place: str) -> dict[str, int]:
        """The files of a session and how long each is."""
        root = self._checked(token, place)
        found = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
        return {str(path.relative_to(root)): path.stat().st_size for path in found}

    def piece(self, token: str, place: str, name: str, at: int) -> tuple[int, int, bytes]:
        """From `at` on the first data of a file: where it begins, where it ends, and it, packed; holes are left out."""
        root = self._checked(token, place)
        path = root / name
        if root not in path.resolve().parents:
            raise ValueError(f"{name} is no file of the recording")
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA) if at < size else size
            except OSError:
                at = size
            file.seek(at)
            data = file.read(min(PIECE, size - at))
        return at, at + len(data), zstandard.ZstdCompressor(level=1).compress(data)

    def discard(self, token: str, place: str) -> None:
        """Delete a session's folder."""
        session = _sessions.get(token)
        if session is not None and str(session.place) == place:
            session.discard()
        else:
            shutil.rmtree(self._checked(token, place), ignore_errors=True)

    def _checked(self, token: str, place: str) -> Path:
        path, base = Path(place).resolve(), self.base()
        if path.parent != base.parent.resolve() or not path.name.startswith(f"{base.name}-{token}-"):
            raise ValueError(f"{place} is no place of this recording")
        return path


def size_of(place: Path) -> int:
    """How many bytes a folder takes on the disk."""
    total = 0
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_blocks * 512
    return total

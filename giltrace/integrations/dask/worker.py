"""What runs in a Dask worker while it is recorded: the tracer, which task runs on which thread, and the way home.

The client calls the functions here by `Client.run`. Whatever goes wrong is told and never hinders the worker.
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
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import dask
import distributed
import zstandard

import giltrace
from giltrace.errors import GiltraceError
from giltrace.launch.inprocess import trace_here
from giltrace.recording.clock_file import append_pair

#: A session's folder has the recording, the log of tasks, and what is known of the worker.
RECORDING, TASKS, ABOUT = "part.giltrace", "tasks.jsonl", "about.json"
_PREFIX = "giltrace-dask"
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

_RUNNING = ("executing", "long-running")


class Recorder(distributed.WorkerPlugin):
    """Records a worker from when it is there, or has joined, until the plugin is taken away or the client is gone."""

    def __init__(self, token: str, stacks: int, most_bytes: int, version: str) -> None:
        self.name = name_of(token)
        self._given = (token, stacks, most_bytes, version)
        self._session: Session | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker that joins and has no giltrace must not fail for that: there it is a plugin that does nothing.
        text = (
            "__import__(module, fromlist=['Recorder']).Recorder(*given)"
            " if __import__('importlib.util', fromlist=['find_spec']).find_spec('giltrace')"
            " else __import__('distributed').WorkerPlugin()"
        )
        return eval, (text, {"module": __name__, "given": self._given})

    def setup(self, worker: Any) -> None:
        """Begin; what prevents it is kept for the client to ask for."""
        token, stacks, most_bytes, version = self._given
        if version != giltrace.__version__:
            return
        session = _sessions.get(token)
        if session is None:
            session = _sessions[token] = Session(token, stacks, most_bytes, worker.loop)
        session.add(worker)
        self._session = session

    def transition(self, key: Any, start: str, finish: str, **_: Any) -> None:
        """Note the tasks that threads do not: those that ran before the recording, and coroutines."""
        if self._session is not None and (start in _RUNNING) != (finish in _RUNNING):
            self._session.moved(key, begins=finish in _RUNNING)

    def teardown(self, worker: Any) -> None:
        """End; what was recorded stays until the client has fetched it."""
        if self._session is not None:
            self._session.end()
            if self._session.ended == REFUSED:
                self._session.discard()


class _Threads(MutableMapping[int, Any]):
    """A worker's `active_threads`, in which threads write which task they begin and end: noted with the time."""

    def __init__(self, threads: MutableMapping[int, Any], session: Session) -> None:
        self.threads, self._session = threads, session

    def __setitem__(self, ident: int, key: Any) -> None:
        self.threads[ident] = key
        self._session.begins(key)

    def __delitem__(self, ident: int) -> None:
        self._session.ends()
        del self.threads[ident]

    def __getitem__(self, ident: int) -> Any:
        return self.threads[ident]

    def __iter__(self) -> Iterator[int]:
        return iter(self.threads)

    def __len__(self) -> int:
        return len(self.threads)

    def copy(self) -> dict[int, Any]:
        """As of a dict."""
        return dict(self.threads)


class Session:
    """The recording of one process, in which there may be several workers (`processes=False`)."""

    def __init__(self, token: str, stacks: int, most_bytes: int, loop: Any) -> None:
        self.place = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{token}-", dir=_base()))
        self.about: dict[str, Any] = {**_here(), "workers": {}, "place": str(self.place)}
        self.problem: tuple[str, str] | None = None
        self.ended = ""
        self.tasks = 0
        self._token, self._most_bytes, self._loop = token, most_bytes, loop
        self._notes: deque[tuple[str, int, int, str]] = deque()
        self._shown: dict[Any, _Threads] = {}
        self._of_threads: set[Any] = set()
        self._before: set[Any] = set()
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
        loop.call_later(_BEAT_SECONDS, self._beat)

    def add(self, worker: Any) -> None:
        """Follow the tasks of a `worker` too."""
        self.about["workers"][worker.address] = str(worker.name)
        (self.place / ABOUT).write_text(json.dumps(self.about))
        if self.ended:
            return
        tids = {thread.ident: thread.native_id or 0 for thread in threading.enumerate()}
        with worker.active_threads_lock:
            self._shown[worker] = worker.active_threads = _Threads(worker.active_threads, self)
            for ident, key in worker.active_threads.items():
                self._before.add(key)
                self._note("before", tids.get(ident, 0), key)

    def begins(self, key: Any) -> None:
        """A thread begins a task: called there, with the GIL, and without giving it up."""
        self._of_threads.add(key)
        self._note("begin", threading.get_native_id(), key)

    def ends(self) -> None:
        """A thread has ended the task that it had begun."""
        self.tasks += 1
        self._note("end", threading.get_native_id(), "")

    def moved(self, key: Any, *, begins: bool) -> None:
        """The worker says that a task runs, or does not any more."""
        if self.ended:
            return
        if begins:
            self._note("runs", 0, key)
        elif key in self._before:
            self._before.discard(key)
            self._note("after", 0, key)
        elif key in self._of_threads:
            self._of_threads.discard(key)
        else:
            self._note("stops", 0, key)

    def _note(self, what: str, tid: int, key: Any) -> None:
        if not self.ended:
            self._notes.append((what, time.monotonic_ns(), tid, str(key)))

    def end(self, why: str = ASKED) -> None:
        """End the recording, unless it has ended."""
        if self.ended:
            return
        for worker, threads in self._shown.items():
            with worker.active_threads_lock:
                worker.active_threads = threads.threads
        self._flush()
        self.ended = why
        self._trace.__exit__(None, None, None)
        self._log.close()
        self._loop.call_later(_KEPT_SECONDS, self.discard)

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
            self._loop.call_later(_BEAT_SECONDS, self._beat)

    def _flush(self) -> None:
        while self._notes:
            self._log.write(json.dumps(self._notes.popleft()) + "\n")
        self._log.flush()

    def discard(self) -> None:
        """Delete what was recorded."""
        self.end()
        _sessions.pop(self._token, None)
        shutil.rmtree(self.place, ignore_errors=True)


#: By token, of this process.
_sessions: dict[str, Session] = {}


def name_of(token: str) -> str:
    """What the plugin is called."""
    return f"giltrace-{token}"


def probe() -> dict[str, Any]:
    """What this process is: its giltrace, host, clock and pid."""
    return _here()


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


def left_behind(token: str) -> list[dict[str, Any]]:
    """What this machine has of workers that are gone: what was known of each."""
    own = {str(session.place) for session in _sessions.values()}
    found = []
    for place in Path(_base()).glob(f"{_PREFIX}-{token}-*"):
        with contextlib.suppress(OSError, ValueError):
            if str(place) not in own:
                found.append({**json.loads((place / ABOUT).read_text()), "place": str(place)})
    return found


def files(token: str, place: str) -> dict[str, int]:
    """The files of a session and how long each is."""
    root = _checked(token, place)
    found = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(root)): path.stat().st_size for path in found}


def piece(token: str, place: str, name: str, at: int) -> tuple[int, int, bytes]:
    """From `at` on the first data of a file: where it begins, where it ends, and it, packed; holes are left out."""
    path = _checked(token, place) / name
    if _checked(token, place) not in path.resolve().parents:
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


def discard(token: str, place: str) -> None:
    """Delete a session's folder."""
    session = _sessions.get(token)
    if session is not None and str(session.place) == place:
        session.discard()
    else:
        shutil.rmtree(_checked(token, place), ignore_errors=True)


def size_of(place: Path) -> int:
    """How many bytes a folder takes on the disk."""
    total = 0
    for path in place.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.stat().st_blocks * 512
    return total


def _checked(token: str, place: str) -> Path:
    path = Path(place).resolve()
    if path.parent != Path(_base()).resolve() or not path.name.startswith(f"{_PREFIX}-{token}-"):
        raise ValueError(f"{place} is no place of this recording")
    return path


def _base() -> str:
    return str(dask.config.get("temporary-directory", None) or tempfile.gettempdir())


def _here() -> dict[str, Any]:
    clock = ""
    with contextlib.suppress(OSError):
        clock = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        clock += " " + os.readlink("/proc/self/ns/time")
    # Without either it is a clock of its own.
    clock = clock or f"{socket.gethostname()} {os.getpid()}"
    return {"giltrace": giltrace.__version__, "host": socket.gethostname(), "clock": clock, "pid": os.getpid()}

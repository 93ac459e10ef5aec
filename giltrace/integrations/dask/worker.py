"""What runs in a Dask worker while it is recorded: a plugin that begins, and what its threads note of tasks.

The client calls what else runs there by `Client.run`. Whatever goes wrong is told and never hinders the worker.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import dask
import distributed

import giltrace
from giltrace.integrations.fleet.session import REFUSED, Ground, Session, session_of

_RUNNING = ("executing", "long-running")


def base() -> Path:
    """How folders of recordings begin, on the machine of a worker."""
    return Path(dask.config.get("temporary-directory", None) or tempfile.gettempdir()) / "giltrace-dask"


GROUND = Ground(base)


class Recorder(distributed.WorkerPlugin):
    """Records a worker from when it is there, or has joined, until the plugin is taken away or the client is gone."""

    def __init__(self, token: str, stacks: int, most_bytes: int, version: str) -> None:
        self.name = name_of(token)
        self._given = (token, stacks, most_bytes, version)
        self._session: DaskSession | None = None

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
        session = session_of(token)
        if not isinstance(session, DaskSession):
            session = DaskSession(base(), token, stacks, most_bytes, worker.loop.call_later)
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

    def __init__(self, threads: MutableMapping[int, Any], session: DaskSession) -> None:
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


class DaskSession(Session):
    """The recording of one process, in which there may be several workers (`processes=False`)."""

    def __init__(self, *given: Any) -> None:
        self._shown: dict[Any, _Threads] = {}
        self._of_threads: set[Any] = set()
        self._before: set[Any] = set()
        super().__init__(*given)

    def add(self, worker: Any) -> None:
        """Follow the tasks of a `worker` too."""
        self.called(worker.address, str(worker.name))
        if self.ended:
            return
        tids = {thread.ident: thread.native_id or 0 for thread in threading.enumerate()}
        with worker.active_threads_lock:
            self._shown[worker] = worker.active_threads = _Threads(worker.active_threads, self)
            for ident, key in worker.active_threads.items():
                self._before.add(key)
                self.note("before", tids.get(ident, 0), key)

    def begins(self, key: Any) -> None:
        """A thread begins a task."""
        self._of_threads.add(key)
        super().begins(key)

    def moved(self, key: Any, *, begins: bool) -> None:
        """The worker says that a task runs, or does not any more."""
        if self.ended:
            return
        if begins:
            self.note("runs", 0, key)
        elif key in self._before:
            self._before.discard(key)
            self.note("after", 0, key)
        elif key in self._of_threads:
            self._of_threads.discard(key)
        else:
            self.note("stops", 0, key)

    def let_go(self) -> None:
        """Leave the workers' `active_threads` as they were."""
        for worker, threads in self._shown.items():
            with worker.active_threads_lock:
                worker.active_threads = threads.threads


def name_of(token: str) -> str:
    """What the plugin is called."""
    return f"giltrace-{token}"

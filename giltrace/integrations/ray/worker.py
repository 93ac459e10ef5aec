"""What a Ray worker does from its start: it notes which task runs on which thread, and may be asked to record itself.

Ray tells of a task's begin and end to nobody, and reaches a worker that works by nothing but the end of its task. So
each worker has a thread that waits at a socket, below the folder of Ray's session on its node; that thread sleeps until
it is asked.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import os
import pickle
import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import ray._private.worker

import giltrace
from giltrace.integrations.fleet.session import Ground, Session, session_of, sessions

#: What Ray has in a worker that is nobody's to use; not all of it has types.
_ray: Any = ray._private.worker

#: By this Ray calls what prepares a worker.
HOOK = f"{__name__}.ready"
#: A recording whose driver has not been heard of for so long is over.
_LEASE_SECONDS = 60
_NODE_LETTERS = 12

_loop: asyncio.AbstractEventLoop | None = None
#: What each thread runs, by its id; and the recording that is told of it.
_running: dict[int, str] = {}
_recording: RaySession | None = None
_lock = threading.Lock()


def ready() -> None:
    """Prepare this worker; whatever prevents it is told to its log, as Ray starts no worker whose preparing fails."""
    try:
        _prepare()
    except Exception as error:
        print(f"giltrace: this worker cannot be recorded: {type(error).__name__}: {error}", file=sys.stderr)


def base() -> Path:
    """How folders of recordings begin, on a node."""
    node = _ray._global_node
    if node is None:
        raise RuntimeError("this process is on no node of a Ray cluster")
    folder = Path(node.get_session_dir_path()) / "giltrace"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / "ray"


GROUND = Ground(base)


def name_of_node(node_id: str) -> str:
    """What a node is called in addresses."""
    return node_id[:_NODE_LETTERS]


def node_name() -> str:
    """What this node is called there."""
    return name_of_node(str(ray.get_runtime_context().get_node_id()))


def socket_of(pid: int) -> Path:
    """Where the worker `pid` of this node listens."""
    return base().parent / f"{node_name()}-{pid}.sock"


def begins() -> list[Path]:
    """The files that say that this node is recorded: of each the content is what a worker begins with."""
    return list(base().parent.glob(f"{node_name()}-*.begin"))


class RaySession(Session):
    """The recording of a worker."""

    def let_go(self) -> None:
        """Be told of no more tasks."""
        global _recording
        with _lock:
            _recording = None


def start(token: str, stacks: int, most_bytes: int, version: str) -> None:
    """Begin to record this worker, unless it does already; what prevents it is kept to be asked for."""
    global _recording
    if version != giltrace.__version__ or session_of(token) is not None or _loop is None:
        return
    session = RaySession(base(), token, stacks, most_bytes, _loop.call_later)
    if session.ended:
        shutil.rmtree(session.place, ignore_errors=True)
        session.about["workers"][_address()] = _name()
        return
    session.called(_address(), _name())
    with _lock:
        _recording = session
        for tid, key in _running.items():
            session.note("before", tid, key)


def withdraw() -> None:
    """Be no worker that is recorded: what starts others is not meant."""
    socket_of(os.getpid()).unlink(missing_ok=True)
    for session in sessions():
        session.discard()


def _address() -> str:
    return f"{node_name()}:{os.getpid()}"


def _name() -> str:
    """By the actor that it is, if it is one."""
    actors = list(_ray.global_worker.actors.values())
    return f"{type(actors[0]).__name__ if actors else 'worker'}-{os.getpid()}"


def _prepare() -> None:
    global _loop
    if _loop is not None:
        return
    manager = _ray.global_worker.function_actor_manager
    execution_info = manager.get_execution_info

    @functools.wraps(execution_info)
    def noting(job: Any, descriptor: Any) -> Any:
        info = execution_info(job, descriptor)
        kind = ".".join(part for part in (descriptor.class_name, descriptor.function_name) if part)
        return info._replace(function=noted(info.function, kind))

    _loop = asyncio.new_event_loop()
    threading.Thread(target=_loop.run_forever, name="giltrace-ray", daemon=True).start()
    asyncio.run_coroutine_threadsafe(_listen(socket_of(os.getpid())), _loop).result()
    manager.get_execution_info = noting


async def _listen(path: Path) -> None:
    # Nobody finds it before it listens.
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    await asyncio.start_unix_server(_answer, beside)
    beside.rename(path)
    # Whoever asks from now on finds this worker; who has asked before has left a file.
    for file in begins():
        with suppress(OSError, ValueError):
            if time.time() - file.stat().st_mtime < _LEASE_SECONDS:
                start(*json.loads(file.read_text()))


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    answer: Any
    try:
        function, arguments = pickle.loads(await reader.read())
        answer = True, function(*arguments)
    except Exception as error:
        answer = False, f"{type(error).__name__}: {error}"
    with suppress(OSError):
        writer.write(pickle.dumps(answer))
        await writer.drain()
    writer.close()


def noted(function: Callable[..., Any], kind: str) -> Callable[..., Any]:
    """The same function, whose begins and ends are noted as of tasks of a `kind`."""
    # Of an actor's method Ray has a function that calls it.
    method = inspect.unwrap(getattr(function, "method", function))
    if inspect.isasyncgenfunction(method):
        return function
    if inspect.iscoroutinefunction(method):

        @functools.wraps(function)
        async def coroutine(*args: Any, **named: Any) -> Any:
            key = _key(kind)
            _on_loop("runs", key)
            try:
                return await function(*args, **named)
            finally:
                _on_loop("stops", key)

        return coroutine
    if inspect.isgeneratorfunction(method):

        @functools.wraps(function)
        def generator(*args: Any, **named: Any) -> Any:
            _begin(_key(kind))
            try:
                return (yield from function(*args, **named))
            finally:
                _end()

        return generator

    @functools.wraps(function)
    def task(*args: Any, **named: Any) -> Any:
        _begin(_key(kind))
        try:
            return function(*args, **named)
        finally:
            _end()

    return task


def _key(kind: str) -> str:
    return f"{kind}-{_ray.global_worker.core_worker.get_current_task_id().hex()}"


def _begin(key: str) -> None:
    with _lock:
        _running[threading.get_native_id()] = key
        if _recording is not None:
            _recording.begins(key)


def _end() -> None:
    with _lock:
        _running.pop(threading.get_native_id(), None)
        if _recording is not None:
            _recording.ends()


def _on_loop(what: str, key: str) -> None:
    with _lock:
        if _recording is not None:
            _recording.note(what, 0, key)

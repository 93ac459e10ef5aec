"""Middleware that tells a flight recorder of requests that took too long: `giltrace record --dump-on 'request>250ms'`.

    application = giltrace.integrations.requests.WSGI(application)
    app.add_middleware(giltrace.integrations.requests.ASGI)            # Starlette, FastAPI

Without such a recorder they pass every call on, and do nothing else. They need the standard library only.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

from giltrace.recording.slow_requests import FOLDER, LIMIT, MOST_BYTES, file_name

_Environ = dict[str, Any]
_Scope = MutableMapping[str, Any]
_AsgiApp = Callable[[_Scope, Any, Any], Awaitable[None]]


class WSGI:
    """Wraps a WSGI `application`: a request lasts until its last byte was taken, or its result is a list."""

    def __init__(self, application: Callable[..., Iterable[bytes]]) -> None:
        self._application = application
        self._limit = _limit()

    def __call__(self, environ: _Environ, start_response: Any) -> Iterable[bytes]:
        """Answer a request."""
        if not self._limit:
            return self._application(environ, start_response)
        begin = time.monotonic_ns()
        name = f"{environ.get('REQUEST_METHOD', '')} {environ.get('SCRIPT_NAME', '')}{environ.get('PATH_INFO', '')}"
        try:
            result = self._application(environ, start_response)
        except BaseException:
            _told(self._limit, begin, name)
            raise
        if isinstance(result, list | tuple):
            _told(self._limit, begin, name)
            return result
        return _Body(result, lambda: _told(self._limit, begin, name))


class _Body:
    """What an application returned, until it is closed."""

    def __init__(self, body: Iterable[bytes], closed: Callable[[], None]) -> None:
        self._body = body
        self._closed = closed

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        """The server is done with it."""
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        finally:
            self._closed()


class ASGI:
    """Wraps an ASGI `app`: a request lasts until the coroutine that answers it ends. WebSockets are no requests."""

    def __init__(self, app: _AsgiApp) -> None:
        self._app = app
        self._limit = _limit()

    async def __call__(self, scope: _Scope, receive: Any, send: Any) -> None:
        """Answer a request."""
        if not self._limit or scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.monotonic_ns()
        try:
            await self._app(scope, receive, send)
        finally:
            _told(self._limit, begin, f"{scope.get('method', '')} {scope.get('path', '')}", _task_name())


def _limit() -> int:
    """From which length on a recorder wants to know; 0 if none does."""
    try:
        return int(os.environ[LIMIT]) if os.environ.get(FOLDER) else 0
    except (KeyError, ValueError):
        return 0


def _task_name() -> str:
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return ""
    try:
        task = asyncio.current_task()
    except RuntimeError:  # another loop than asyncio's
        return ""
    return task.get_name() if task is not None else ""


def _told(limit: int, begin: int, name: str, task: str = "") -> None:
    """Write down a request that took too long; what fails here is no business of the program's."""
    end = time.monotonic_ns()
    if end - begin <= limit:
        return
    about = {"start": begin, "end": end, "tid": threading.get_native_id(), "request": name[:500], "task": task[:200]}
    path = os.path.join(os.environ.get(FOLDER, ""), file_name(os.getpid()))
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(descriptor).st_size < MOST_BYTES:
                os.write(descriptor, json.dumps(about).encode() + b"\n")
        finally:
            os.close(descriptor)
    except OSError:
        pass

"""GIL metrics of ASGI applications: FastAPI, Starlette, anything that uvicorn or hypercorn runs.

One of these lines::

    app = FastAPI(lifespan=giltrace.integrations.asgi.lifespan)  # counts while the application runs
    app = giltrace.integrations.asgi.counted(app)  # the same for any ASGI application
    app.mount("/metrics", giltrace.integrations.asgi.metrics_app())  # counts, and serves Prometheus

With several workers (``uvicorn --workers 4``) name a folder that they share by ``GILTRACE_METRICS_DIR``: each then
tells of all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from giltrace import metrics
from giltrace.integrations._service import start_or_warn

_Application = Callable[[Any, Any, Any], Awaitable[None]]


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """For the `lifespan` of FastAPI and Starlette: count while the application runs."""
    start_or_warn()
    try:
        yield
    finally:
        metrics.stop()


def counted(app: _Application) -> _Application:
    """Return `app`, counted from its first event on: with uvicorn that is its startup."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        start_or_warn()
        await app(scope, receive, send)

    return application


def metrics_app() -> _Application:
    """Count, and return an ASGI application that serves Prometheus. Raises `UsageError` without prometheus_client."""
    from prometheus_client import CollectorRegistry, make_asgi_app

    registry = CollectorRegistry()
    registry.register(metrics.PrometheusCollector())
    application: _Application = make_asgi_app(registry)
    return application

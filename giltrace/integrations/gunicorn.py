"""GIL metrics of gunicorn's workers, as its configuration or as hooks in yours.

``gunicorn -c python:giltrace.integrations.gunicorn app:app``, or in gunicorn.conf.py::

    from giltrace.integrations.gunicorn import on_starting, post_fork, when_ready

Each worker counts; `giltrace.metrics.PrometheusCollector` in any of them tells of all, and so does the master at the
address that ``GILTRACE_METRICS_LISTEN`` names, if it does.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

from giltrace.integrations._service import common_folder, serve_if_asked, start_or_warn


def on_starting(server: Any) -> None:
    """Before there is any worker: choose the folder that all share."""
    folder = common_folder()
    if os.geteuid() == 0:  # workers may have less rights
        with contextlib.suppress(OSError):
            os.chown(folder, server.cfg.uid, server.cfg.gid)


def when_ready(server: Any) -> None:
    """In the master: serve the metrics where that is asked for."""
    serve_if_asked(server.log.warning)


def post_fork(server: Any, worker: Any) -> None:
    """In each worker: count. One that cannot goes on without."""
    start_or_warn(server.log.warning)

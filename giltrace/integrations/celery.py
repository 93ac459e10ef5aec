"""GIL metrics of Celery's workers: one line, in the module that has the Celery application::

    giltrace.integrations.celery.install()

Each process of a worker counts. A worker has no server of its own: it serves at the address that
``GILTRACE_METRICS_LISTEN`` names, if it does.
"""

from __future__ import annotations

from typing import Any

from celery import signals

from giltrace.integrations._service import common_folder, serve_if_asked, start_or_warn


def install() -> None:
    """Connect to Celery's signals: nothing happens in a process that is no worker."""
    signals.worker_init.connect(_worker)
    signals.worker_process_init.connect(_process)
    signals.worker_ready.connect(_ready)


def _worker(**about: Any) -> None:
    """In the worker's main process, before it makes others: choose the folder that all share."""
    common_folder()
    _process()


def _process(**about: Any) -> None:
    start_or_warn()


def _ready(**about: Any) -> None:
    serve_if_asked()

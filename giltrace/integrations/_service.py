"""What integrations of services share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from giltrace import metrics
from giltrace.errors import GiltraceError
from giltrace.metrics.inprocess import FOLDER, log, shared_folder, temporary_folder

#: An address as `giltrace metrics --listen` takes it.
LISTEN = "GILTRACE_METRICS_LISTEN"


def start_or_warn(warn: Callable[..., object] = log.warning) -> None:
    """Let this process count; why it cannot goes to `warn`: the service is there for others."""
    try:
        metrics.start()
    except GiltraceError as error:
        warn("no GIL metrics: %s", error)


def common_folder() -> Path:
    """The folder that the processes of this service are to share: the environment's, else one that is named there."""
    folder = shared_folder()
    if folder is None:
        folder = temporary_folder()
        os.environ[FOLDER] = str(folder)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def serve_if_asked(warn: Callable[..., object] = log.warning) -> None:
    """Serve what the processes of this service count at the address in ``GILTRACE_METRICS_LISTEN``, if there is one.

    What goes wrong goes to `warn`: the service is there for others.
    """
    address = os.environ.get(LISTEN)
    if address:
        try:
            metrics.serve(address)
        except GiltraceError as error:
            warn("no GIL metrics are served: %s", error)

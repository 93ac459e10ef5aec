"""A collector for the registries of `prometheus_client`, in the program itself."""

from __future__ import annotations

import os

from giltrace import installation
from giltrace.errors import UsageError
from giltrace.metrics import inprocess

try:
    from giltrace.metrics.export.prometheus import TotalsCollector
except ImportError:
    raise UsageError("prometheus_client is not installed", installation.with_extra("prometheus")) from None


class PrometheusCollector(TotalsCollector):
    """Has a registry tell what this process counts, and all that share its folder::

        prometheus_client.REGISTRY.register(giltrace.metrics.PrometheusCollector())

    Counting is started, as by `giltrace.metrics.start`, unless `start` is False: then those are told that count in the
    folder that the environment names. A scrape never fails for it: what is wrong goes to the log, once.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, start: bool = True) -> None:
        super().__init__(inprocess.Quiet())
        if start:
            inprocess.start(folder)
